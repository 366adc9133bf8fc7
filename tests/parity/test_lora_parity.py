"""LoRA against peft on transformers' LLaVA: logits, loss, gradients, and the merged model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from parity_samples import Sample, batch_of, llava_inputs, random_sample
from torch_reference import (
    SHAPES,
    gradients,
    lora_to_our_layout,
    our_parameters,
    random_llava,
    to_our_layout,
    values,
)

from svit_jax.models.lora import LoraConfig, is_lora, merge
from svit_jax.models.parameters import with_parameters
from svit_jax.models.svit import Compute, SvitConfig, abstract_model
from svit_jax.training.objective import batch_sums

FLOAT32 = Compute("float32")
LORA = LoraConfig(rank=6, alpha=15.0, dropout=0.0)
TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


@pytest.fixture(scope="module", params=["grouped", "multi_head"])
def config(request) -> SvitConfig:
    return dataclasses.replace(SHAPES[request.param], lora=LORA)


@pytest.fixture(scope="module")
def base(config) -> dict[str, np.ndarray]:
    return our_parameters(random_llava(config, seed=14), config)


@pytest.fixture(scope="module")
def adapted(config) -> peft.PeftModel:
    """With both factors random, and the projector trained in full beside them.

    What LoRA adds is a third of what the kernels give. (Were it as large as they, transformers' own
    float32 logits would be 1.6e-5 from its float64 ones, and there would be little to compare.)
    """
    settings = peft.LoraConfig(
        r=LORA.rank, lora_alpha=LORA.alpha, lora_dropout=0.0, target_modules=TARGETS, bias="none"
    )
    model = peft.get_peft_model(random_llava(config, seed=14), settings)
    generator = torch.Generator().manual_seed(15)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        elif "multi_modal_projector" in name:
            parameter.requires_grad_(True)
    return model.eval()


@pytest.fixture(scope="module")
def parameters(config, base, adapted) -> dict[str, np.ndarray]:
    return {**base, **lora_to_our_layout(values(adapted), config)}


@pytest.fixture(scope="module")
def samples(config) -> list[Sample]:
    rng = np.random.default_rng(16)
    return [random_sample(config, rng, w, m) for w, m in ((11, 0), (9, 1), (14, 2))]


def logits(config, parameters, batch) -> np.ndarray:
    @jax.jit
    def run(parameters, *fields):
        model = with_parameters(abstract_model(config), parameters)
        return model.decoder.unembed(model.hidden(*fields, FLOAT32))

    fields = (batch.tokens, batch.segment_ids, batch.positions, batch.images, batch.vision_index)
    return np.asarray(run({p: jnp.asarray(v) for p, v in parameters.items()}, *fields))


def test_logits_unmerged_and_merged(config, parameters, adapted, samples, differences):
    with torch.no_grad():
        inputs = llava_inputs(config, samples)
        inputs.pop("labels")
        expected = adapted(**inputs).logits.numpy()
    batch = batch_of(config, [[sample] for sample in samples], max(map(len, samples)), 2)
    unmerged = logits(config, parameters, batch)
    arrays = {path: jnp.asarray(value) for path, value in parameters.items()}
    merged = logits(dataclasses.replace(config, lora=None), merge(arrays, LORA), batch)
    for row, sample in enumerate(samples):
        here = slice(len(sample))
        ours, theirs = unmerged[row, here], expected[row, here]
        differences.absolute("LoRA logits, unmerged", ours, theirs, 1e-5)
        differences.absolute("LoRA logits, merged", merged[row, here], theirs, 1e-5)
        differences.absolute("LoRA logits, merged against unmerged", merged[row, here], ours, 1e-5)


def test_loss_and_gradients(config, parameters, adapted, samples, differences):
    adapted.zero_grad()
    loss = adapted(**llava_inputs(config, samples)).loss
    loss.backward()
    found = gradients(adapted)
    expected = lora_to_our_layout(found, config)
    projector = {
        name[name.index("multi_modal") :]: g for name, g in found.items() if "multi" in name
    }
    expected |= to_our_layout(projector, config)

    structure = abstract_model(config)
    frozen = {path: jnp.asarray(value) for path, value in parameters.items()}
    batch = batch_of(config, [samples], sum(map(len, samples)) + 1, 3)

    @jax.jit
    @jax.value_and_grad
    def ours(trained, batch):
        model = with_parameters(structure, {**frozen, **trained})
        sums = batch_sums(model, batch, FLOAT32, 16)
        return sums.loss / sums.weight

    mean, grads = ours({path: frozen[path] for path in expected}, batch)
    assert {path for path in grads if not path.startswith("projector/")} == {
        path for path in frozen if is_lora(path)
    }
    differences.absolute("LoRA loss", mean, loss.detach(), 1e-5)
    for path, grad in grads.items():
        differences.relative("LoRA and projector gradients", grad, expected[path], 1e-4, path)

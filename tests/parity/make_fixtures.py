"""Writes tests/fixtures/llava_SHAPE.npz: what transformers computes, for tests without torch.

    .venv/bin/python tests/parity/make_fixtures.py

Each file holds random weights in our layout (float16 holds them exactly), a batch in ours, and what
transformers says of it in float32: tower features, logits of the decoder alone and of the whole
model, the loss, some gradients, greedy answers. The tests that read them are
tests/svit_jax/models/test_stored_parity.py and tests/svit_jax/inference/test_stored_answers.py.
"""

from pathlib import Path

import numpy as np
import torch
from parity_samples import batch_of, llava_inputs, prompt_of, random_sample
from torch_reference import (
    SHAPES,
    gradients,
    our_parameters,
    pixel_values,
    random_llava,
    to_our_layout,
)

REPOSITORY = Path(__file__).resolve().parents[2]
GRADIENTS = (
    "tower/blocks/fc1_bias",
    "projector/fc1",
    "decoder/blocks/k",
    "decoder/blocks/mlp_norm/scale",
    "decoder/norm/scale",
)
NEW = 12


def fixture(name: str) -> dict[str, np.ndarray]:
    config = SHAPES[name]
    reference = random_llava(config, seed=20)
    rng = np.random.default_rng(21)
    samples = [random_sample(config, rng, w, m) for w, m in ((11, 0), (9, 1), (8, 2))]
    weights = our_parameters(reference, config)
    found = {f"weights/{path}": value.astype(np.float16) for path, value in weights.items()}

    batch = batch_of(config, [samples[:2], samples[2:]], sum(map(len, samples[:2])) + 20, 2)
    found |= {f"batch/{field}": value for field, value in vars(batch).items()}

    loss = reference(**llava_inputs(config, samples)).loss
    loss.backward()
    found["loss"] = loss.detach().numpy()
    grads = to_our_layout(gradients(reference), config)
    found |= {f"gradients/{path}": grads[path] for path in GRADIENTS}

    with torch.no_grad():
        images = samples[2].images
        states = reference.model.vision_tower(pixel_values(images), output_hidden_states=True)
        found["features"] = states.hidden_states[config.vision.feature_layer][:, 1:].numpy()
        words = torch.from_numpy(samples[0].tokens[None].astype(np.int64))
        hidden = reference.model.language_model(input_ids=words).last_hidden_state
        found["decoder_logits"] = reference.lm_head(hidden)[0].numpy()
        for number, sample in enumerate(samples):
            inputs = llava_inputs(config, [sample])
            inputs.pop("labels")
            found[f"logits/{number}"] = reference(**inputs).logits[0].numpy()
            answer = reference.generate(
                **inputs, do_sample=False, max_new_tokens=NEW, eos_token_id=None, pad_token_id=0
            )
            prompt = prompt_of(config, sample)
            found[f"prompts/{number}/tokens"] = prompt.tokens
            found[f"prompts/{number}/vision_index"] = prompt.vision_index
            found[f"prompts/{number}/images"] = prompt.images
            found[f"answers/{number}"] = answer[0, len(sample) :].numpy().astype(np.int32)
    return found


def main() -> None:
    for name in ("multi_head", "grouped"):
        file = REPOSITORY / "tests" / "fixtures" / f"llava_{name}.npz"
        np.savez_compressed(file, **fixture(name))
        print(f"{file.relative_to(REPOSITORY)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

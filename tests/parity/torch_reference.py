"""Small random models of transformers, and their weights in our layout.

    config = SHAPES["grouped"]
    reference = random_llava(config, seed=0)
    parameters = our_parameters(reference)           # path ("decoder/blocks/q") -> float32 array
    model = with_parameters(abstract_model(config), parameters)

The mapping is written from transformers' names alone and shares nothing with the product's
converter, so that each can hold the other to account.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.svit import SvitConfig
from svit_jax.models.vision_tower import VisionConfig

Arrays = dict[str, np.ndarray]


def _shape(image_size: int, patch_size: int, vision: dict, decoder: dict) -> SvitConfig:
    statistics = {"image_mean": IMAGE_MEAN, "image_std": IMAGE_STD}
    sizes = {"image_size": image_size, "patch_size": patch_size}
    return SvitConfig(VisionConfig(**sizes, **vision, **statistics), DecoderConfig(**decoder))


SHAPES = {
    "multi_head": _shape(
        28,
        14,
        {"embed": 32, "layers": 3, "heads": 4, "mlp": 96},
        {"vocab": 96, "embed": 48, "layers": 2, "heads": 4, "kv_heads": 4, "head_dim": 12}
        | {"mlp": 80},
    ),
    "grouped": _shape(
        24,
        8,
        {"embed": 48, "layers": 4, "heads": 3, "mlp": 80},
        {"vocab": 71, "embed": 36, "layers": 3, "heads": 6, "kv_heads": 2, "head_dim": 10}
        | {"mlp": 52, "rope_theta": 500.0},
    ),
    "one_kv_head": _shape(
        40,
        8,
        {"embed": 40, "layers": 2, "heads": 5, "mlp": 64},
        {"vocab": 130, "embed": 64, "layers": 4, "heads": 8, "kv_heads": 1, "head_dim": 8}
        | {"mlp": 112},
    ),
}
"""No two sizes of one shape alike where it matters, so that a swapped axis is an error."""


def image_token(config: SvitConfig) -> int:
    """The id that transformers replaces by patches: the last one, which no text of ours has."""
    return config.decoder.vocab - 1


def vision_config(config: VisionConfig) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=config.embed,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_norm_eps=config.norm_eps,
        hidden_act="quick_gelu",
        attn_implementation="eager",
    )


def text_config(config: DecoderConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=config.vocab,
        hidden_size=config.embed,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Every parameter random, biases and norms too, at scales that keep activations near one.

    The values are float16's, so that a fixture may store them in two bytes.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if re.search(r"norm\d?\.weight$|layrnorm\.weight$", name):
            value = 1 + 0.2 * drawn
        elif name.endswith("bias") or "position_embedding" in name:
            value = 0.3 * drawn
        elif "embed_tokens" in name or "class_embedding" in name:
            value = drawn
        else:
            value = drawn / np.sqrt(np.prod(parameter.shape[1:]))
        parameter.data.copy_(value.half().float())


def random_llava(config: SvitConfig, seed: int) -> LlavaForConditionalGeneration:
    reference = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision_config(config.vision),
            text_config=text_config(config.decoder),
            image_token_index=image_token(config),
            image_seq_length=config.vision.patches,
            vision_feature_layer=config.vision.feature_layer,
            vision_feature_select_strategy="default",
            projector_hidden_act="gelu",
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
    )
    randomise(reference, seed)
    return reference.eval()


def random_tower(config: VisionConfig, seed: int) -> CLIPVisionModel:
    reference = CLIPVisionModel(vision_config(config))
    randomise(reference, seed)
    return reference.eval()


def random_decoder(config: DecoderConfig, seed: int) -> LlamaForCausalLM:
    reference = LlamaForCausalLM(text_config(config))
    randomise(reference, seed)
    return reference.eval()


def values(module: torch.nn.Module) -> Arrays:
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def gradients(module: torch.nn.Module) -> Arrays:
    """Of every parameter that the loss reached."""
    found = {name: p.grad for name, p in module.named_parameters()}
    return {name: grad.numpy().copy() for name, grad in found.items() if grad is not None}


def our_parameters(module: torch.nn.Module, config: SvitConfig) -> Arrays:
    """The weights of any of the models above, by our paths, in our layout."""
    return to_our_layout(values(module), config)


def to_our_layout(tensors: Mapping[str, np.ndarray], config: SvitConfig) -> Arrays:
    """Tensors named and laid out as transformers' become ours; what we never store is left out.

    Good for weights and for gradients alike: every step is a permutation of axes.
    """
    found: Arrays = {}
    short = {re.sub(r"^(model\.|vision_model\.|language_model\.)+", "", n): n for n in tensors}
    layers: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for name, original in short.items():
        tensor = np.asarray(tensors[original])
        inner = re.sub(r"^vision_tower\.(vision_model\.)?", "", name)
        block = re.fullmatch(r"(encoder\.)?layers\.(\d+)\.(.+)", inner)
        if block:
            tower = bool(block[1])
            mapped = _tower_block if tower else _decoder_block
            room = "tower/blocks" if tower else "decoder/blocks"
            layers.setdefault((room, int(block[2])), {}).update(mapped(block[3], tensor, config))
        else:
            found.update(_single(inner, tensor))
    for room, depth in (
        ("tower/blocks", config.vision.stored_layers),
        ("decoder/blocks", config.decoder.layers),
    ):
        for leaf in layers.get((room, 0), {}):
            found[f"{room}/{leaf}"] = np.stack([layers[room, i][leaf] for i in range(depth)])
    return found


def _single(name: str, x: np.ndarray) -> Arrays:
    if name.startswith("post_layernorm."):
        return {}
    if name == "embeddings.patch_embedding.weight":  # [C, colour, y, x]
        return {"tower/patch_embedding": x.transpose(2, 3, 1, 0)}
    path = {
        "embeddings.class_embedding": "tower/class_embedding",
        "embeddings.position_embedding.weight": "tower/position_embedding",
        "pre_layrnorm.weight": "tower/pre_norm/scale",
        "pre_layrnorm.bias": "tower/pre_norm/bias",
        "multi_modal_projector.linear_1.weight": "projector/fc1",
        "multi_modal_projector.linear_1.bias": "projector/fc1_bias",
        "multi_modal_projector.linear_2.weight": "projector/fc2",
        "multi_modal_projector.linear_2.bias": "projector/fc2_bias",
        "embed_tokens.weight": "decoder/embedding",
        "norm.weight": "decoder/norm/scale",
        "lm_head.weight": "decoder/unembedding",
    }[name]
    return {path: x.T if path in ("projector/fc1", "projector/fc2") else x}


def _tower_block(name: str, x: np.ndarray, config: SvitConfig) -> Arrays:
    heads, size = config.vision.heads, config.vision.head_dim
    module, kind = name.removeprefix("self_attn.").removeprefix("mlp.").split(".")
    if module.startswith("layer_norm"):
        leaf = "scale" if kind == "weight" else "bias"
        return {f"norm{module[-1]}/{leaf}": x}
    if module in ("q_proj", "k_proj", "v_proj"):
        letter = module[0]
        if kind == "bias":
            return {f"{letter}_bias": x.reshape(heads, size)}
        return {letter: x.T.reshape(-1, heads, size)}
    if module == "out_proj":
        return {"out_bias": x} if kind == "bias" else {"out": x.T.reshape(heads, size, -1)}
    return {f"{module}_bias": x} if kind == "bias" else {module: x.T}


def _decoder_block(name: str, x: np.ndarray, config: SvitConfig) -> Arrays:
    size = config.decoder.head_dim
    module = name.removesuffix(".weight").removeprefix("self_attn.").removeprefix("mlp.")
    if module in ("q_proj", "k_proj", "v_proj"):
        return {module[0]: x.T.reshape(x.shape[1], -1, size)}
    if module == "o_proj":
        return {"o": x.T.reshape(-1, size, x.shape[0])}
    norms = {
        "input_layernorm": "attention_norm/scale",
        "post_attention_layernorm": "mlp_norm/scale",
    }
    if module in norms:
        return {norms[module]: x}
    return {module.removesuffix("_proj"): x.T}


def pixel_values(images: np.ndarray | Iterable[np.ndarray]) -> torch.Tensor:
    """uint8 pictures [I, Y, X, 3] as CLIP's processor hands them on: float32 [I, 3, Y, X]."""
    scaled = np.asarray(images).astype(np.float32) / np.float32(255)
    normed = (scaled - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    return torch.from_numpy(normed.transpose(0, 3, 1, 2).copy())


def lora_to_our_layout(tensors: Mapping[str, np.ndarray], config: SvitConfig) -> Arrays:
    """PEFT's `lora_A` [r, in] and `lora_B` [out, r] of every layer, by our paths, in our layout."""
    size, layers = config.decoder.head_dim, range(config.decoder.layers)
    found: dict[str, list[np.ndarray]] = {}
    for layer in layers:
        for name, x in tensors.items():
            part = re.search(rf"layers\.{layer}\.(self_attn|mlp)\.(\w+)_proj\.lora_([AB])\.", name)
            if not part:
                continue
            target, factor = part[2], part[3].lower()
            x = x.T
            if factor == "a" and target == "o":
                x = x.reshape(-1, size, x.shape[1])
            if factor == "b" and target in ("q", "k", "v"):
                x = x.reshape(x.shape[0], -1, size)
            found.setdefault(f"decoder/blocks/{target}_lora/{factor}", []).append(x)
    return {path: np.stack(arrays) for path, arrays in found.items()}

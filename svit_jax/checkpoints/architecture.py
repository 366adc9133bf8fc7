"""config.json <-> SvitConfig. What the model cannot be is refused, all of it at once."""

import math
from collections.abc import Mapping
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.portable import Pieces
from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.svit import SvitConfig
from svit_jax.models.vision_tower import VisionConfig

Json = Mapping[str, Any]
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

# Where config.json leaves out what equals transformers' default.
_LLAMA_DEFAULTS: Json = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "rms_norm_eps": 1e-6,
}
_CLIP_DEFAULTS: Json = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "layer_norm_eps": 1e-5,
}
# What must hold for our model to compute the same; a field that is absent holds.
_LLAMA_MUST: Json = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "tie_word_embeddings": (False,),
    "rope_scaling": (None,),
    "pretraining_tp": (1,),
}
_CLIP_MUST: Json = {"hidden_act": ("quick_gelu",), "num_channels": (3,)}
_LLAVA_MUST: Json = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch",),
    "mm_use_im_start_end": (False,),
    "mm_use_im_patch_token": (False,),
    "image_aspect_ratio": ("pad", "square", None),
}
_LLAVA_HF_MUST: Json = {
    "projector_hidden_act": ("gelu",),
    "vision_feature_select_strategy": ("default",),
    "multimodal_projector_bias": (True,),
    "tie_word_embeddings": (False,),
}
_CLIP_HEAD_DIM = 64  # of every published CLIP tower


def _check(config: Json, must: Json, where: str) -> list[str]:
    return [
        f"{where}{field} is {config[field]!r}, the model has {allowed[0]!r}"
        for field, allowed in must.items()
        if field in config and config[field] not in allowed
    ]


def _theta(config: Json) -> float:
    given = {"rope_theta": 10000.0, **config, **(config.get("rope_parameters") or {})}
    return float(given["rope_theta"])


def decoder_config(text: Json, vocabulary: int | None, where: str) -> DecoderConfig:
    """The decoder of a Llama config (or LLaVA's, which extends one); at most `vocabulary` rows."""
    config = {**_LLAMA_DEFAULTS, **text}
    problems = _check(config, _LLAMA_MUST, "")
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        problems.append(f"rope_type is {rope['rope_type']!r}, the model has 'default'")
    _refuse(problems, where)
    heads = config["num_attention_heads"]
    rows = config["vocab_size"]
    return DecoderConfig(
        vocab=rows if vocabulary is None else min(rows, vocabulary),
        embed=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        mlp=config["intermediate_size"],
        norm_eps=float(config["rms_norm_eps"]),
        rope_theta=_theta(config),
    )


def vision_config(
    vision: Json, feature_layer: Any, statistics: Statistics, where: str
) -> VisionConfig:
    """The tower of a CLIP vision config."""
    config = {**_CLIP_DEFAULTS, **vision}
    problems = _check(config, _CLIP_MUST, "")
    layers = config["num_hidden_layers"]
    if type(feature_layer) is not int or not -layers - 1 <= feature_layer < 0:
        problems.append(f"the vision feature layer is {feature_layer!r}, LLaVA-1.5 has -2")
    _refuse(problems, where)
    return VisionConfig(
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        embed=config["hidden_size"],
        layers=layers,
        heads=config["num_attention_heads"],
        mlp=config["intermediate_size"],
        image_mean=statistics[0],
        image_std=statistics[1],
        feature_layer=feature_layer,
        norm_eps=float(config["layer_norm_eps"]),
    )


def vision_json_from_shapes(pieces: Pieces) -> Json:
    """The vision config that a tower's shapes tell, its heads 64 wide as in published CLIPs."""
    shapes = {local: x.shape for (part, local), x in pieces.items() if part == "tower"}
    try:
        embed, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
        positions = shapes["embeddings.position_embedding.weight"][0]
        mlp = shapes["encoder.layers.0.mlp.fc1.weight"][0]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"the vision tower inside the checkpoint lacks {error}; give --vision-tower."
        ) from None
    layers = {int(local.split(".")[2]) for local in shapes if local.startswith("encoder.layers.")}
    return {
        "hidden_size": embed,
        "intermediate_size": mlp,
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": max(1, embed // _CLIP_HEAD_DIM),
        "image_size": math.isqrt(positions - 1) * patch,
        "patch_size": patch,
    }


def check_llava(config: Json, where: str) -> None:
    """Raises UserError where an original LLaVA's config.json is of another model than 1.5."""
    _refuse(_check(config, _LLAVA_MUST, ""), where)


def check_llava_hf(config: Json, where: str) -> None:
    """Raises UserError where a llava-hf config.json is of another model than 1.5."""
    _refuse(_check(config, _LLAVA_HF_MUST, ""), where)


def _refuse(problems: list[str], where: str) -> None:
    if problems:
        raise UserError(
            f"config {where} is of another model than LLaVA-1.5: {'; '.join(problems)}. Only "
            "LLaVA-1.5, SVIT-v1.5 and models of their architecture can be converted."
        )


def llama_json(decoder: DecoderConfig) -> dict[str, Any]:
    """The fields of a Llama config.json that describe the weights."""
    return {
        "hidden_size": decoder.embed,
        "intermediate_size": decoder.mlp,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        "head_dim": decoder.head_dim,
        "vocab_size": decoder.vocab,
        "rms_norm_eps": decoder.norm_eps,
        "rope_theta": decoder.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }


def clip_json(vision: VisionConfig, layers: int) -> dict[str, Any]:
    """The fields of a CLIP vision config.json that describe the weights."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": vision.embed,
        "intermediate_size": vision.mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": vision.heads,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "layer_norm_eps": vision.norm_eps,
        "hidden_act": "quick_gelu",
    }


def llava_json(model: SvitConfig, dtype: str, image_mode: str, source: Json) -> dict[str, Any]:
    """config.json of an original LLaVA-1.5; `source`, if it was one, fills what we do not know."""
    general = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "max_position_embeddings": 4096,
        "tokenizer_model_max_length": 2048,
        "tokenizer_padding_side": "right",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "use_cache": True,
        "use_mm_proj": True,
    }
    return {
        **general,
        **source,
        **llama_json(model.decoder),
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": model.vision.embed,
        "mm_vision_select_layer": model.vision.feature_layer,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad" if image_mode == "pad" else "square",
        "torch_dtype": dtype,
    }


def llava_hf_json(
    model: SvitConfig, rows: int, image_token: int, dtype: str, source: Json
) -> dict[str, Any]:
    """config.json of transformers' LlavaForConditionalGeneration with `rows` embeddings."""
    text = {"model_type": "llama", "max_position_embeddings": 4096, **source.get("text_config", {})}
    return {
        "pad_token_id": image_token + 1,
        **source,
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": image_token,
        "image_seq_length": model.vision.patches,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": model.vision.feature_layer,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "text_config": {**text, **llama_json(model.decoder), "vocab_size": rows},
        "vision_config": {
            **source.get("vision_config", {}),
            **clip_json(model.vision, model.vision.layers),
        },
    }

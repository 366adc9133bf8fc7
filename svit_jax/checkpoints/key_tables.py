"""Hugging Face keys, in one place: whose parameter each is, and how its array becomes ours.

A key is a prefix, which the layout of a checkpoint decides, and a local name, which the part of
the model decides:

    model.language_model.  layers.7.self_attn.q_proj.weight  ->  decoder/blocks/q, layer 7
    (a layout's prefix)    (the decoder's local name)

torch's Linear weights are [out, in]; our kernels are [*in, *out], layers stacked in front.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

Part = Literal["decoder", "head", "projector_in", "projector_out", "tower"]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
    """One layer's array between torch's shape and ours. Both ways only move values."""

    their_shape: Callable[[Shape], Shape]
    to_ours: Callable[[np.ndarray, Shape], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


SAME = Transform(lambda shape: shape, lambda x, shape: x, lambda x: x)
FLAT = Transform(
    lambda shape: (math.prod(shape),), lambda x, shape: x.reshape(shape), lambda x: x.reshape(-1)
)
CONVOLUTION = Transform(  # [C, colour, y, x] <-> [y, x, colour, C]
    lambda shape: (shape[3], shape[2], shape[0], shape[1]),
    lambda x, shape: x.transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1),
)


def kernel(inputs: int) -> Transform:
    """[out, in] <-> a kernel whose first `inputs` axes are torch's in."""

    def their_shape(shape: Shape) -> Shape:
        return math.prod(shape[inputs:]), math.prod(shape[:inputs])

    return Transform(
        their_shape,
        lambda x, shape: x.T.reshape(shape),
        lambda x: x.reshape(their_shape(x.shape)[::-1]).T,
    )


@dataclasses.dataclass(frozen=True)
class Rule:
    """A local name of one part, the path of our parameter, and the way between their arrays."""

    part: Part
    local: str
    path: str
    transform: Transform

    @property
    def stacked(self) -> bool:
        return "{layer}" in self.local


def _linear(part: Part, local: str, path: str, inputs: int = 1) -> tuple[Rule, Rule]:
    return (
        Rule(part, f"{local}.weight", path, kernel(inputs)),
        Rule(part, f"{local}.bias", f"{path}_bias", FLAT),
    )


def _norm(local: str, path: str) -> tuple[Rule, Rule]:
    return (
        Rule("tower", f"{local}.weight", f"{path}/scale", FLAT),
        Rule("tower", f"{local}.bias", f"{path}/bias", FLAT),
    )


# The decoder's projections: our name -> torch's, and how many axes of ours are torch's in.
DECODER_PROJECTIONS: Mapping[str, tuple[str, int]] = {
    "q": ("self_attn.q_proj", 1),
    "k": ("self_attn.k_proj", 1),
    "v": ("self_attn.v_proj", 1),
    "o": ("self_attn.o_proj", 2),
    "gate": ("mlp.gate_proj", 1),
    "up": ("mlp.up_proj", 1),
    "down": ("mlp.down_proj", 1),
}

_LLAMA, _CLIP = "layers.{layer}", "encoder.layers.{layer}"
_BLOCKS, _TOWER_BLOCKS = "decoder/blocks", "tower/blocks"

RULES: tuple[Rule, ...] = (
    Rule("decoder", "embed_tokens.weight", "decoder/embedding", SAME),
    *(
        Rule("decoder", f"{_LLAMA}.{theirs}.weight", f"{_BLOCKS}/{ours}", kernel(inputs))
        for ours, (theirs, inputs) in DECODER_PROJECTIONS.items()
    ),
    Rule("decoder", f"{_LLAMA}.input_layernorm.weight", f"{_BLOCKS}/attention_norm/scale", FLAT),
    Rule("decoder", f"{_LLAMA}.post_attention_layernorm.weight", f"{_BLOCKS}/mlp_norm/scale", FLAT),
    Rule("decoder", "norm.weight", "decoder/norm/scale", FLAT),
    Rule("head", "weight", "decoder/unembedding", SAME),
    Rule("projector_in", "weight", "projector/fc1", kernel(1)),
    Rule("projector_in", "bias", "projector/fc1_bias", FLAT),
    Rule("projector_out", "weight", "projector/fc2", kernel(1)),
    Rule("projector_out", "bias", "projector/fc2_bias", FLAT),
    Rule("tower", "embeddings.class_embedding", "tower/class_embedding", FLAT),
    Rule("tower", "embeddings.patch_embedding.weight", "tower/patch_embedding", CONVOLUTION),
    Rule("tower", "embeddings.position_embedding.weight", "tower/position_embedding", SAME),
    *_norm("pre_layrnorm", "tower/pre_norm"),  # CLIP's own spelling
    *_norm(f"{_CLIP}.layer_norm1", f"{_TOWER_BLOCKS}/norm1"),
    *_norm(f"{_CLIP}.layer_norm2", f"{_TOWER_BLOCKS}/norm2"),
    *_linear("tower", f"{_CLIP}.self_attn.q_proj", f"{_TOWER_BLOCKS}/q"),
    *_linear("tower", f"{_CLIP}.self_attn.k_proj", f"{_TOWER_BLOCKS}/k"),
    *_linear("tower", f"{_CLIP}.self_attn.v_proj", f"{_TOWER_BLOCKS}/v"),
    *_linear("tower", f"{_CLIP}.self_attn.out_proj", f"{_TOWER_BLOCKS}/out", inputs=2),
    *_linear("tower", f"{_CLIP}.mlp.fc1", f"{_TOWER_BLOCKS}/fc1"),
    *_linear("tower", f"{_CLIP}.mlp.fc2", f"{_TOWER_BLOCKS}/fc2"),
)
RULE_OF_PATH = {rule.path: rule for rule in RULES}


def lora_rules(targets: Iterable[str]) -> tuple[Rule, ...]:
    """The rules of LoRA beside these projections: A is [r, in], B is [out, r]."""
    found: list[Rule] = []
    for ours in targets:
        theirs, inputs = DECODER_PROJECTIONS[ours]
        local, path = f"{_LLAMA}.{theirs}", f"{_BLOCKS}/{ours}_lora"
        found.append(Rule("decoder", f"{local}.lora_A.weight", f"{path}/a", kernel(inputs)))
        found.append(Rule("decoder", f"{local}.lora_B.weight", f"{path}/b", kernel(1)))
    return tuple(found)


# What a tower holds past the features that LLaVA takes: kept beside a checkpoint, never run.
UNUSED_IN_TOWER = ("post_layernorm.weight", "post_layernorm.bias")
# Buffers of older saves, which follow from the sizes, and CLIP's other half.
IGNORED = re.compile(
    r".*rotary_emb\.inv_freq|.*embeddings\.position_ids|text_model\..*|logit_scale"
    r"|(visual|text)_projection\.weight"
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one family of checkpoints begins its keys: part -> prefix."""

    format: str
    prefixes: Mapping[Part, str]

    def key(self, part: Part, local: str) -> str:
        return self.prefixes[part] + local

    def split(self, key: str) -> tuple[Part, str] | None:
        """The part and local name of a key, the longest prefix first; None where none fits."""
        fitting = [(len(p), part) for part, p in self.prefixes.items() if key.startswith(p)]
        if not fitting:
            return None
        length, part = max(fitting)
        return part, key[length:]


def _hugging_face(decoder: str, head: str, outer: str, tower: str) -> Layout:
    projector = f"{outer}multi_modal_projector.linear_"
    return Layout(
        "llava-hf",
        {
            "decoder": decoder,
            "head": head,
            "projector_in": f"{projector}1.",
            "projector_out": f"{projector}2.",
            "tower": f"{outer}vision_tower.{tower}",
        },
    )


_VICUNA: Mapping[Part, str] = {"decoder": "model.", "head": "lm_head."}
_MM_PROJECTOR: Mapping[Part, str] = {
    "projector_in": "model.mm_projector.0.",
    "projector_out": "model.mm_projector.2.",
}
LLAVA = Layout(
    "llava",
    {**_VICUNA, **_MM_PROJECTOR, "tower": "model.vision_tower.vision_tower.vision_model."},
)
LLAVA_HF = _hugging_face("language_model.model.", "language_model.lm_head.", "", "vision_model.")
VICUNA = Layout("vicuna", _VICUNA)
CLIP = Layout("clip", {"tower": "vision_model."})
PROJECTOR = Layout("projector", _MM_PROJECTOR)

# The first of a format is the one that exports write; the others are written by newer releases of
# transformers, or are the names that it uses in memory.
LAYOUTS: tuple[Layout, ...] = (
    LLAVA,
    LLAVA_HF,
    _hugging_face("language_model.model.", "language_model.lm_head.", "", ""),
    _hugging_face("model.language_model.", "lm_head.", "model.", "vision_model."),
    _hugging_face("model.language_model.", "lm_head.", "model.", ""),
    VICUNA,
    CLIP,
    Layout("clip", {"tower": ""}),
    PROJECTOR,
)

_LOCALS: dict[Part, dict[str, Rule]] = {}
for _rule in RULES:
    _LOCALS.setdefault(_rule.part, {})[_rule.local] = _rule
_LAYER = re.compile(r"(?<=layers\.)\d+(?=\.)")


def find_rule(part: Part, local: str) -> tuple[Rule, int | None] | None:
    """The rule of a local name and the layer that it names (None: it is of no layer)."""
    number = _LAYER.search(local)
    general = _LAYER.sub("{layer}", local, count=1)
    rule = _LOCALS[part].get(general)
    if rule is None:
        return None
    return rule, int(number.group()) if number else None


def matching_layout(keys: Iterable[str], layouts: Sequence[Layout] = LAYOUTS) -> Layout | None:
    """The layout that understands most of the keys; None where none understands any.

    Of two that understand as many, the one with fewer parts: a Vicuna is not a LLaVA that lacks
    its projector.
    """
    names = list(keys)

    def understood(layout: Layout) -> int:
        found = (layout.split(name) for name in names)
        return sum(pair is not None and find_rule(*pair) is not None for pair in found)

    best = max(layouts, key=lambda layout: (understood(layout), -len(layout.prefixes)))
    return best if understood(best) else None

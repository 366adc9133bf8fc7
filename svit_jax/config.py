"""ConfigDict -> frozen dataclasses, once, at the edge. Nothing further in sees a ConfigDict."""

import dataclasses
import difflib
import functools
import importlib.util
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from ml_collections import ConfigDict

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import require_file
from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.models.decoder import PROJECTIONS, DecoderConfig
from svit_jax.models.lora import LoraConfig
from svit_jax.models.presets import PRESETS
from svit_jax.models.svit import Compute, SvitConfig
from svit_jax.models.vision_tower import VisionConfig
from svit_jax.sharding.mesh import MeshConfig
from svit_jax.training.optimizer import OptimConfig
from svit_jax.training.settings import CheckpointConfig, DataConfig, RunConfig, TrainConfig

T = TypeVar("T")


_REQUIRED = {"data": ("train", "tokenizer"), "optim": ("trainable",)}


def default_config(size: str) -> ConfigDict:
    """Every key with its default, for the named size of `models.presets`; a config file changes
    what it needs and returns it."""
    if size not in PRESETS:
        raise UserError(f"there is no model size '{size}'; choose one of {', '.join(PRESETS)}.")
    vision, decoder = PRESETS[size]["vision"], PRESETS[size]["decoder"]
    config = ConfigDict()
    config.model = {
        "vision": {**_defaults(VisionConfig, ("image_mean", "image_std")), **vision},
        "decoder": {**_defaults(DecoderConfig), **decoder},
        "lora": _defaults(LoraConfig) | {"rank": 0},
        "compute": _defaults(Compute),
    }
    config.mesh = _defaults(MeshConfig)
    config.data = _defaults(DataConfig) | {
        "train": "",
        "tokenizer": "",
        "batch_size": 128,
        "row_length": 2048,
        "pictures_per_row": 1,
    }
    config.optim = _defaults(OptimConfig) | {"learning_rate": 2e-5, "trainable": ()}
    config.train = _defaults(TrainConfig)
    config.checkpoint = _defaults(CheckpointConfig)
    return config


def _defaults(kind: type, leave: Sequence[str] = ()) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(kind):
        if field.name in leave:
            continue
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The ConfigDict of `path/to/config.py` or `path/to/config.py:argument`, changed by overrides
    ("optim.learning_rate=1e-3"), then locked."""
    path, _, argument = spec.partition(":")
    file = require_file(path, "config")
    if file.suffix != ".py":
        raise UserError(f"config {path} is not a Python file; give one of configs/*.py.")
    loader = importlib.util.spec_from_file_location(file.stem, str(file))
    assert loader and loader.loader
    module = importlib.util.module_from_spec(loader)
    try:
        loader.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"config {path} has no get_config(); see configs/ for examples.")
        config = module.get_config(argument) if argument else module.get_config()
    except UserError:
        raise
    except Exception as error:  # a config is the user's program: it may fail in any way
        raise UserError(f"config {spec} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config {path}: get_config() gives no ConfigDict; see configs/.")
    config.lock()
    for override in overrides:
        _override(config, override)
    return config


def _override(config: ConfigDict, override: str) -> None:
    key, found, text = override.partition("=")
    if not found:
        raise UserError(f"override '{override}' has no '='; write section.key=value.")
    leaves = dict(_leaves(config))
    if key not in leaves:
        near = difflib.get_close_matches(key, leaves, n=1, cutoff=0)
        raise UserError(f"config has no key '{key}'; the nearest is '{near[0]}'.")
    old = leaves[key]
    *sections, last = key.split(".")
    node = functools.reduce(operator.getitem, sections, config)
    try:
        node[last] = _parse(text, old)
    except (ValueError, TypeError):
        raise UserError(
            f"config key '{key}' is a {type(old).__name__}, and '{text}' is not one."
        ) from None


def _parse(text: str, old: Any) -> Any:
    if isinstance(old, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(old, tuple):
        return tuple(part for part in text.split(",") if part)
    return type(old)(text)


def _leaves(config: ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        found += _leaves(value, f"{name}.") if isinstance(value, ConfigDict) else [(name, value)]
    return found


def build(kind: type[T], section: Mapping[str, Any], where: str, **given: Any) -> T:
    """A dataclass from one config section; an unknown or missing key is an error that names it."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in section:
        if key not in fields or key in given:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0)
            raise UserError(
                f"config has no key '{where}.{key}'; the nearest is '{where}.{near[0]}'."
            )
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(section) - set(given))
    if missing:
        raise UserError(f"config lacks the key '{where}.{missing[0]}', which has no default.")
    values = {key: _coerce(value, hints[key], f"{where}.{key}") for key, value in section.items()}
    return kind(**values, **given)


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` as the field's type wants it: lists become tuples, ints floats where due."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _coerce(value, next(a for a in arguments if a is not type(None)), where)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"config key '{where}' is {value!r}; choose one of {list(arguments)}.")
        return value
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(
                f"config key '{where}' is {value!r}, a {type(value).__name__}; it must be a tuple."
            )
        return tuple(value)
    if origin is not None and issubclass(origin, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise UserError(
            f"config key '{where}' is {value!r}, a {type(value).__name__}; "
            f"it must be a {hint.__name__}."
        )
    return value


SECTIONS = ("model", "mesh", "data", "optim", "train", "checkpoint")


def run_config(config: ConfigDict, with_data: bool = True) -> RunConfig:
    """The typed configuration of a training run; `with_data` False: its data need not be given."""
    for section in config:
        if section not in SECTIONS:
            near = difflib.get_close_matches(section, SECTIONS, n=1, cutoff=0)
            raise UserError(f"config has no section '{section}'; the nearest is '{near[0]}'.")
    for section in SECTIONS:
        if section not in config:
            raise UserError(f"config lacks the section '{section}'; begin with default_config().")
    for section, keys in _REQUIRED.items():
        for key in keys if with_data or section != "data" else ():
            if not config[section].get(key):
                raise UserError(
                    f"config key '{section}.{key}' is empty; set it in the config file, or on the "
                    f"command line with --{section}.{key}=..."
                )
    model = config.model
    return RunConfig(
        model=model_config(model.to_dict()),
        compute=build(Compute, model.compute.to_dict(), "model.compute"),
        mesh=build(MeshConfig, config.mesh.to_dict(), "mesh"),
        data=build(DataConfig, config.data.to_dict(), "data"),
        optim=build(OptimConfig, config.optim.to_dict(), "optim"),
        train=build(TrainConfig, config.train.to_dict(), "train"),
        checkpoint=build(CheckpointConfig, config.checkpoint.to_dict(), "checkpoint"),
    )


def model_config(section: Mapping[str, Any]) -> SvitConfig:
    """The architecture, from the config's `model` section."""
    vision = build(
        VisionConfig,
        section["vision"],
        "model.vision",
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )
    decoder = build(DecoderConfig, section["decoder"], "model.decoder")
    lora = build(LoraConfig, section["lora"], "model.lora")
    return SvitConfig(vision, decoder, _checked_lora(lora) if lora.rank else None)


def _checked_lora(lora: LoraConfig) -> LoraConfig:
    unknown = [name for name in lora.targets if name not in PROJECTIONS]
    if unknown or not lora.targets:
        raise UserError(
            f"config key 'model.lora.targets' is {lora.targets!r}; choose some of "
            f"{', '.join(PROJECTIONS)}."
        )
    if lora.rank < 0 or lora.alpha <= 0 or not 0 <= lora.dropout < 1:
        raise UserError(
            f"config section 'model.lora' has rank={lora.rank}, alpha={lora.alpha}, "
            f"dropout={lora.dropout}; the rank must be at least 0, alpha above 0 and dropout in "
            "[0, 1)."
        )
    return lora

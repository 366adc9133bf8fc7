"""How a step is compiled: the config's XLA options, and the cache that restarts read it from."""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from data_pipeline.common.errors import UserError

_FOLDER = "jax_compilation_cache_dir"
_SAVED = "/jax/compilation_cache/compile_time_saved_sec"


def say(text: str) -> None:
    """A line on standard error, from one process of a job."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def platform_options(entries: tuple[str, ...], platform: str) -> dict[str, Any]:
    """XLA's options for this platform among entries like "xla_gpu_autotune_level=2".

    An option is of the platform in its name (`xla_tpu_...`), or in front of it, for libtpu's whose
    names don't say so ("tpu:xla_jf_...=..."); any other is of all platforms. Those of another
    platform are left out, and a line says so. Raises UserError for an entry without a value.
    """
    options: dict[str, Any] = {}
    other = []
    for entry in entries:
        found = re.fullmatch(r"(?:(tpu|gpu|cpu):)?(xla_(?:(tpu|gpu|cpu)_)?\w+)=(.+)", entry)
        if not found:
            raise UserError(
                f"train.compiler_options has '{entry}'; write it as xla_NAME=VALUE, or, for one "
                "platform alone, as tpu:xla_NAME=VALUE."
            )
        prefix, name, named, value = found.groups()
        if (prefix or named or platform) == platform:
            options[name] = _parsed(value)
        else:
            other.append(name)
    if other:
        say(f"compiler options of other platforms than {platform} are left out: {', '.join(other)}")
    return options


def _parsed(value: str) -> Any:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return {"true": True, "false": False}.get(value.lower(), value)


def compiled(lowered: Any, entries: tuple[str, ...], platform: str) -> Any:
    """The lowered function, compiled with the config's options; raises UserError for one that XLA
    does not know, or whose value it refuses."""
    options = platform_options(entries, platform)
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if options and re.search("No such compile option|While setting option", str(error)):
            raise UserError(
                f"train.compiler_options: XLA refuses one ({error}); correct or remove it."
            ) from error
        raise


@contextlib.contextmanager
def compilation_cache(folder: str) -> Iterator[None]:
    """What is compiled in here is kept in `folder` (a path or a bucket; "" keeps nothing), and
    found there by the next run; a line says what that saved.

    A cache that JAX has been given already (JAX_COMPILATION_CACHE_DIR) is used instead.
    """
    before = getattr(jax.config, _FOLDER)
    used = before or _made(folder) if folder else None
    saved: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _SAVED:
            saved.append(max(duration_secs, 0))

    _use(used)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
        _use(before)
    if saved:
        programs = "1 program" if len(saved) == 1 else f"{len(saved)} programs"
        say(f"{programs} found compiled in {used}: saved {sum(saved):.1f} s")


def _made(folder: str) -> str | None:
    """The folder, there by now; None, and a line that says why, where it can't be."""
    path = epath.Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        say(
            f"compiling without a cache: {folder} can't be made ({error}); "
            "train.compilation_cache says where it lies"
        )
        return None
    return str(path)


def _use(folder: str | None) -> None:
    if folder != getattr(jax.config, _FOLDER):
        jax.config.update(_FOLDER, folder)
        reset_cache()  # it was opened at the first compilation, and would stay where it was

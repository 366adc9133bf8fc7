"""The config's XLA options reach the compiler; the cache is used, and says what it saved."""

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.training.compilation import compilation_cache, compiled, platform_options


def lowered(number: float):
    return jax.jit(lambda x: jnp.sin(x) @ x + number).lower(jnp.ones((8, 8)))


def test_options_go_to_their_platform(capsys):
    entries = (
        "xla_tpu_scoped_vmem_limit_kib=65536",
        "tpu:xla_jf_spmd_threshold=1.5",
        "xla_gpu_enable_latency_hiding_scheduler=True",
        "xla_embed_ir_in_executable=false",
        "xla_dump_to=/tmp/a=b",
    )
    everywhere = {"xla_embed_ir_in_executable": False, "xla_dump_to": "/tmp/a=b"}
    assert platform_options(entries, "cpu") == everywhere
    assert "than cpu are left out: xla_tpu_scoped_vmem_limit_kib, xla_jf" in capsys.readouterr().err
    assert platform_options(entries[:2], "tpu") == {
        "xla_tpu_scoped_vmem_limit_kib": 65536,
        "xla_jf_spmd_threshold": 1.5,
    }
    assert capsys.readouterr().err == ""
    assert platform_options(entries[2:3], "gpu") == {
        "xla_gpu_enable_latency_hiding_scheduler": True
    }


def test_options_reach_the_compiler(tmp_path):
    compiled(lowered(1), (f"cpu:xla_dump_to={tmp_path}",), "cpu")
    assert any(path.suffix == ".txt" for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "entry, message",
    [
        ("xla_foo=true", "XLA refuses one .*No such compile option: 'xla_foo'"),
        ("xla_embed_ir_in_executable=maybe", "XLA refuses one .*'maybe' is not a valid bool"),
        ("xla_embed_ir_in_executable", "write it as xla_NAME=VALUE"),
        ("fast=true", "has 'fast=true'; write it as xla_NAME=VALUE"),
        ("npu:xla_foo=1", "has 'npu:xla_foo=1'"),
    ],
)
def test_wrong_options(entry, message):
    with pytest.raises(UserError, match=message):
        compiled(lowered(2), (entry,), "cpu")


def test_flags_that_the_docs_name_are_known_and_of_that_kind():
    """XLA's own parser refuses unknown names and wrong values, of other platforms' flags too."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "gpu.md").read_text()
    flags = re.findall(r"`(xla_gpu_\w+=\w+)`", page)
    assert len(set(flags)) >= 7
    options = platform_options(tuple(flags), "gpu")
    lowered(4).compile(compiler_options=options)


@pytest.fixture
def no_cache(compilation_cache):
    """As in a user's process, where JAX knows of no cache."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def run(folder, number: float) -> float:
    jax.clear_caches()
    with compilation_cache(str(folder)):
        program = lowered(number).compile()
    return float(program(jnp.ones((8, 8)))[0, 0])


def test_a_restart_finds_what_was_compiled_and_says_so(no_cache, tmp_path, capsys):
    folder = tmp_path / "new" / "cache"
    first = run(folder, 3.0)
    entries = {path.name for path in folder.iterdir()}
    assert entries and "found compiled" not in capsys.readouterr().err
    assert run(folder, 3.0) == first
    said = capsys.readouterr().err
    assert re.fullmatch(rf"\d programs? found compiled in {folder}: saved \d+\.\d s\n", said)
    # An entry that a kill tore is compiled again.
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        assert run(folder, 3.0) == first
    assert jax.config.jax_compilation_cache_dir is None
    shutil.rmtree(folder)
    run("", 3.0)
    assert not folder.exists()


def test_a_cache_that_jax_was_given_stays(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "given"))
    run(tmp_path / "ours", 4.0)
    assert list((tmp_path / "given").iterdir()) and not (tmp_path / "ours").exists()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "given")


def test_a_cache_that_can_not_be_made_is_said_and_done_without(no_cache, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "cache", 5.0)
    assert "compiling without a cache: " in capsys.readouterr().err

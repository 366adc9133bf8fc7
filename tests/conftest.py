"""What all tests share: eight simulated CPU devices, strict rank promotion, optional real data."""

import os
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# XLA's threads. With one for each device, a device that waits in one collective has none left for
# another that its neighbours wait in: the step hangs, on busy machines above all.
os.environ.setdefault("NPROC", "32")
# Small programs are compiled more often than they run: without LLVM's optimizations and the newer
# emitters (which later versions can't leave out) that takes a third of the time. `make parity` and
# the demo are compiled as users' programs are.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * version("jax").startswith("0.10."),
)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def cache_of_programs(tmp_path_factory):
    """Programs that tests start keep what they compile here, not in the user's own cache."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled_by_programs"))
    yield
    del os.environ["JAX_COMPILATION_CACHE_DIR"]


REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real data; the test is skipped where it is absent (a user's clone)."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the small real data is not beside this checkout")
    return folder

"""The shape of the house: who imports whom, and files that can be read in one sitting."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = 400
# A longer file stands here with the reason.
LONGER: dict[str, int] = {}


def python_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    return sorted(found)


def test_rooms_import_along_the_arrows():
    """The contracts stand in pyproject.toml, under [tool.importlinter]."""
    command = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imported_roots(path: Path) -> Iterator[str]:
    """The top-level package of every import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", ["jax", "jaxlib", "flax", "optax", "orbax", "svit_jax"])
def test_data_pipeline_never_imports(package):
    """Read from our own statements: Grain itself imports jax, so loaded modules would not tell."""
    files = python_files("data_pipeline")
    assert len(files) > 50
    guilty = [str(path) for path in files if package in imported_roots(path)]
    assert guilty == []


def test_no_file_is_too_long():
    files = python_files(
        "data_pipeline", "svit_jax", "configs", "tests", "benchmarks", "tpu_scripts", ".ci"
    )
    lengths = {
        path.relative_to(REPOSITORY).as_posix(): path.read_text().count("\n") for path in files
    }
    too_long = {
        name: length for name, length in lengths.items() if length > LONGER.get(name, LONGEST)
    }
    assert too_long == {}

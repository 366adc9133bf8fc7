"""Runs tests/parity, which compare with torch, transformers and peft.

Torch's CPU build is pinned for one version of Python. On another there is nothing to compare with:
it says so and succeeds.
"""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = (3, 11)


def main():
    if sys.version_info[:2] != PYTHON:
        print(
            "parity: skipped, because torch's CPU build is there for Python {}.{} alone and this "
            "is {}.{}; try make PYTHON=python3.11 parity.".format(*PYTHON, *sys.version_info[:2])
        )
        return
    make = [sys.executable, os.path.join(ROOT, ".ci", "environment.py")]
    python = os.path.join(".venv", "bin", "python")
    for command in (
        [*make, ".venv", "--extra", "test", "parity"],
        [python, "-m", "pytest", "-q", "-m", "parity", "tests/parity"],
    ):
        # Compiled as users' programs are: flags that are set, tests/conftest.py leaves alone.
        environment = {"XLA_FLAGS": "", **os.environ}
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()

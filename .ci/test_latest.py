"""Runs the fast tests on the newest Python at hand, with the newest packages that pip gives it.

    python3 .ci/test_latest.py [FOLDER ...]     # all of tests/, or these

Looks for `python3.N` on the PATH and in pyenv's folder. Where none is newer than the one that runs
this, there is nothing to learn from it: it says so and succeeds.
"""

import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = ".venv-latest"
ASK = "import sys; v = sys.version_info; print(v[0], v[1], v[2], v.releaselevel)"


def main():
    newest = max(find_pythons(), default=None)
    if newest is None or newest[0][:2] <= sys.version_info[:2]:
        print(
            "test-latest: no Python newer than {}.{} is here; `make test` covers it.".format(
                *sys.version_info[:2]
            )
        )
        return
    version, python = newest
    print("test-latest: Python {} ({})".format(".".join(map(str, version)), python), flush=True)
    make = [python, os.path.join(ROOT, ".ci", "environment.py")]
    run([*make, FOLDER, "--extra", "test", "--newest"])
    python = os.path.join(FOLDER, "bin", "python")
    run([python, "-c", "import jax; print('test-latest: jax', jax.__version__)"])
    folders = sys.argv[1:] or ["tests"]
    run([python, "-m", "pytest", "-q", "-m", "not slow", "--ignore=tests/parity", *folders])


def run(command):
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(code)


def find_pythons():
    """Yields ((major, minor, micro), path) of released Pythons that start."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    candidates = [
        os.path.join(folder, name)
        for folder in folders
        if os.path.isdir(folder)
        for name in os.listdir(folder)
        if re.fullmatch(r"python3\.\d+", name)
    ]
    candidates += glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3"))
    for path in dict.fromkeys(candidates):
        try:
            answer = subprocess.run(
                [path, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        # A pyenv shim of a version that is not switched on is there, and fails.
        words = answer.stdout.decode().split() if answer.returncode == 0 else []
        if len(words) == 4 and words[3] == "final":
            yield tuple(map(int, words[:3])), path


if __name__ == "__main__":
    main()

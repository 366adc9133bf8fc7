"""Runs every benchmark of benchmarks/ that is a program, one after another."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> int:
    """0 where all of them succeed, else the exit status of the first that fails."""
    programs = [
        path
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        if 'if __name__ == "__main__":' in path.read_text()
    ]
    if not programs:
        print("there are no benchmarks yet: benchmarks/ holds no program.")
    for number, path in enumerate(programs, start=1):
        print(f"[{number}/{len(programs)}] {path.relative_to(ROOT)}", flush=True)
        code = subprocess.run([sys.executable, path], cwd=ROOT).returncode
        if code:
            print(f"{path.relative_to(ROOT)} failed with exit status {code}.", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())

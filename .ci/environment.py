"""Makes a virtual environment with this project in it, or says at once that it stands there.

    python3 .ci/environment.py FOLDER [--extra NAME ...] [--newest]

The file FOLDER/installed.json says what was installed for; it is written last and taken away
before anything is changed, so a setup that was interrupted is noticed, and made anew: pip can't
tell a package that was copied by half from a whole one.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Nothing is compiled ahead: Python compiles the modules that are used when they are used.
PIP = ("install", "--no-compile", "--disable-pip-version-check", "--no-input", "--prefer-binary")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="the environment's folder, relative to the repository")
    parser.add_argument(
        "--extra", nargs="+", default=[], help="extras of pyproject.toml to install too"
    )
    parser.add_argument("--newest", action="store_true", help="raise all packages to their newest")
    options = parser.parse_args()
    # Old versions must get as far as this line: nothing above it may be newer than they are.
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"svit-jax needs Python {OLDEST[0]}.{OLDEST[1]} or newer, but {sys.executable} is "
            f"{found}; install a newer one and put it first on the PATH, or name it: "
            "make PYTHON=python3.12 ..."
        )
    prepare(os.path.join(ROOT, options.folder), options.extra, options.newest)


def prepare(folder, extras, newest):
    """The environment in `folder` holds the project, editable, with at least these extras."""
    import tomllib

    stamp = os.path.join(folder, "installed.json")
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)
    needs = {key: project[key] for key in ("build-system", "project")}
    needs["setuptools"] = project["tool"]["setuptools"]
    wanted = {
        # Scripts in the environment hold its absolute path: a folder that was moved is made anew.
        "place": [folder, sys.version, sys.base_prefix],
        "project": hashlib.sha256(json.dumps(needs, sort_keys=True).encode()).hexdigest(),
    }
    found = read_stamp(stamp)
    extras = set(found.get("extras", ())) | set(extras)
    usable = found.get("place") == wanted["place"] and os.path.exists(python_of(folder))
    current = usable and found["project"] == wanted["project"]
    if current and extras == set(found["extras"]) and not newest:
        return

    start = time.monotonic()
    if usable:
        os.remove(stamp)
    else:
        if os.path.exists(folder):
            say(f"{folder} is unfinished or of another Python: it is made anew")
            shutil.rmtree(folder)
        say(f"making {folder} with Python {sys.version.split()[0]}")
        make_venv(folder)
    install(folder, extras, newest)
    with open(stamp + ".partial", "w") as file:
        json.dump({**wanted, "extras": sorted(extras)}, file)
    os.replace(stamp + ".partial", stamp)
    say(f"environment ready in {time.monotonic() - start:.0f} s")


def read_stamp(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def python_of(folder):
    return os.path.join(folder, "bin", "python")


def make_venv(folder):
    done = subprocess.run(
        [sys.executable, "-m", "venv", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(
            "python3 -m venv {} failed; on Debian and Ubuntu it needs the package python3-venv. It "
            "said: {}".format(folder, " ".join(done.stdout.decode().split()))
        )


def install(folder, extras, newest):
    """pip install -e . with what pip says cut down to a count; all of it where pip fails."""
    target = "{}[{}]".format(ROOT, ",".join(sorted(extras))) if extras else ROOT
    upgrade = ["--upgrade", "--upgrade-strategy", "eager"] if newest else []
    command = [python_of(folder), "-m", "pip", *PIP, "--progress-bar", "off", *upgrade]
    say("installing svit-jax and what it needs (a minute or two the first time)")
    process = subprocess.Popen(
        [*command, "--editable", target],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines, found = [], 0
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Collecting "):
            found += 1
            show(f"{found} packages found: {line.split()[1]}")
        elif line.startswith("Installing collected packages"):
            show("unpacking {} packages".format(line.count(",") + 1))
    show("")
    if process.wait():
        sys.exit("".join(lines[-30:]) + "pip could not install svit-jax; the reason stands above.")


def say(text):
    print(text, file=sys.stderr, flush=True)


def show(text):
    """Text that the next one replaces; nothing where no terminal would show it so."""
    if sys.stderr.isatty():
        print("\r\033[K" + text[:79], end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

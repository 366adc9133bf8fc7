"""Stand-ins for the cloud's tools, first on the PATH, and a run's settings for them."""

import contextlib
import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tpu_scripts.__main__ import main

STAND_INS = Path(__file__).with_name("stand_ins")


@dataclasses.dataclass
class StandIn:
    """The stand-in's folder, and settings beside it."""

    root: Path
    file: Path

    def rules(self, **rules: Any) -> None:
        self.root.mkdir(exist_ok=True)
        (self.root / "rules.json").write_text(json.dumps(rules))

    def settings(self, **changed: Any) -> None:
        keys = {
            "project": "p",
            "zone": "us-west4-a",
            "name": "svit",
            "accelerator_type": "v5litepod-8",
            "bucket": "gs://bucket",
            "budget": 100.0,
            "install": "true",
            "python": "python3",
            **changed,
        }
        # A JSON list or string or number is TOML too.
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.file.write_text("\n".join(lines))

    @property
    def state(self) -> dict[str, Any]:
        path = self.root / "state.json"
        empty: dict[str, Any] = {"requests": {}, "nodes": {}, "calls": []}
        return json.loads(path.read_text()) if path.exists() else empty

    @property
    def calls(self) -> list[str]:
        """The first two words of each call."""
        return [" ".join(call[:2]) for call in self.state["calls"]]

    def svit(self, *arguments: str) -> int:
        """`python3 -m tpu_scripts ARGUMENTS`."""
        return main(["--file", str(self.file), "--every", "0.05", *arguments])

    def program(self, script: str) -> str:
        """An `install` that puts this Python in the place of `svit`."""
        self.root.mkdir(exist_ok=True)
        (self.root / "program.py").write_text(script)
        cli = "svit_jax/cli"
        return f"rm -rf svit_jax && mkdir -p {cli} && cp $STAND_IN/program.py {cli}/__main__.py"

    def host(self, node: str = "svit", worker: int = 0) -> Path:
        return self.root / "hosts" / f"{node}-{worker}"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{STAND_INS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(tmp_path / "cloud"))
    found = StandIn(tmp_path / "cloud", tmp_path / "run.toml")
    found.settings()
    yield found
    for pid in found.root.glob("hosts/*/svit/run/pid"):
        with contextlib.suppress(OSError, ValueError):
            os.killpg(os.getpgid(int(pid.read_text())), signal.SIGKILL)

"""gcloud's commands for one slice: each as it is printed, run and understood."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from data_pipeline.common.errors import UserError
from tpu_scripts.settings import Settings

State = Literal["absent", "waiting", "ready", "gone"]
"""Of a slice: not there; asked for or being made; usable; preempted, failed or half there."""

# Of queued resources and of nodes: https://cloud.google.com/tpu/docs/queued-resources and
# https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes.
_LOST_REQUESTS = ("FAILED", "SUSPENDING", "SUSPENDED")
_LOST_NODES = ("PREEMPTED", "TERMINATED", "STOPPED", "STOPPING", "HIDDEN", "HIDING")
_CHARGED_NODES = ("READY", "REPAIRING", "RESTARTING", "REIMAGING")


class CloudError(UserError):
    """gcloud, or a command on a host, failed."""


class Cloud:
    """gcloud about one slice. With `dry_run` each command is printed, those that only ask too, none
    is run, and the slice is as `assumed`."""

    def __init__(self, settings: Settings, dry_run: bool = False, assumed: State = "absent"):
        self.settings = settings
        self.dry_run = dry_run
        self.assumed: State = assumed

    def run(self, *arguments: str) -> str:
        """What `gcloud compute tpus ...` prints. Raises CloudError with the last that it says."""
        command = ["gcloud", "compute", "tpus", *arguments, f"--project={self.settings.project}"]
        if self.dry_run:
            print(shlex.join(command))
            return ""
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise UserError(
                "there is no gcloud on the PATH; install the Google Cloud CLI "
                "(https://cloud.google.com/sdk/docs/install) and run gcloud auth login."
            ) from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
            shown = shlex.join(command)
            raise CloudError(f"{shown} ended with {done.returncode}: {' '.join(said[-3:])}")
        return done.stdout

    def create(self) -> None:
        """Asks for the slice, and does not wait for it."""
        s = self.settings
        capacity = [] if s.capacity == "on-demand" else [f"--{s.capacity}"]
        if s.service_account:
            capacity.append(f"--service-account={s.service_account}")
        of = [f"--zone={s.zone}", f"--accelerator-type={s.accelerator_type}", *capacity]
        if not s.queued:
            self.run("tpu-vm", "create", s.name, *of, f"--version={s.runtime}", "--async")
            return
        nodes = (
            [f"--node-id={s.name}"]
            if s.slices == 1
            else [f"--node-count={s.slices}", f"--node-prefix={s.name}"]
        )
        runtime = f"--runtime-version={s.runtime}"
        self.run("queued-resources", "create", s.name, *of, runtime, *nodes, "--async")

    def delete(self) -> None:
        """Deletes the slice, its nodes first, and waits until it is gone."""
        s = self.settings
        zone = f"--zone={s.zone}"
        if s.queued:
            self.run("queued-resources", "delete", s.name, zone, "--force", "--quiet")
        else:
            self.run("tpu-vm", "delete", s.name, zone, "--quiet")

    def state(self) -> State:
        s = self.settings
        if self.dry_run:
            if s.queued:
                self._describe("queued-resources", s.name)
            if not s.queued or self.assumed == "ready":
                for node in s.nodes:
                    self._describe("tpu-vm", node)
            return self.assumed
        if s.queued:
            request = self._describe("queued-resources", s.name)
            if request is None:
                return "absent"
            found = request.get("state", {}).get("state", "")
            if found in _LOST_REQUESTS:
                return "gone"
            if found != "ACTIVE":
                return "waiting"
        nodes = [self._describe("tpu-vm", node) for node in s.nodes]
        states = ["" if node is None else node.get("state", "") for node in nodes]
        if not s.queued and states == [""]:
            return "absent"
        if all(state == "READY" for state in states):
            return "ready"
        # A request can stay ACTIVE for a while after its nodes were taken.
        return "gone" if any(state in ("", *_LOST_NODES) for state in states) else "waiting"

    def _describe(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            text = self.run(kind, "describe", name, f"--zone={self.settings.zone}", "--format=json")
        except CloudError as error:
            if "NOT_FOUND" in str(error) or "not found" in str(error):
                return None
            raise
        return None if self.dry_run else json.loads(text)

    def charged(self) -> list[dict[str, str]]:
        """Every TPU VM of the project that costs money now, whoever made it: name, zone, type."""
        found = json.loads(self.run("tpu-vm", "list", "--zone=-", "--format=json") or "[]")
        rows = []
        for node in found:
            _, _, _, zone, _, name = node["name"].split("/")
            if node.get("state") in _CHARGED_NODES:
                rows.append({"name": name, "zone": zone, "type": node.get("acceleratorType", "?")})
        return rows

    def ssh(self, command: str, node: str, worker: str = "all") -> str:
        """What the command prints on one worker, or on all of them at the same time."""
        return self.run(
            *("tpu-vm", "ssh", node, f"--zone={self.settings.zone}", f"--worker={worker}"),
            *("--quiet", f"--command={command}"),
        )

    def everywhere(self, command: str) -> str:
        """What the command prints on all workers of all nodes, which run it at the same time."""
        nodes = self.settings.nodes
        with ThreadPoolExecutor(len(nodes)) as threads:
            return "".join(threads.map(lambda node: self.ssh(command, node), nodes))

    def copy(self, file: Path, target: str) -> None:
        """The file on all workers of all nodes."""
        for node in self.settings.nodes:
            self.run(
                *("tpu-vm", "scp", str(file), f"{node}:{target}"),
                *(f"--zone={self.settings.zone}", "--worker=all", "--quiet"),
            )

    def attach(self, command: Sequence[str]) -> int:
        """Runs a command on the first worker with this terminal; returns its exit code."""
        s = self.settings
        place = [f"--zone={s.zone}", f"--project={s.project}", "--worker=0"]
        remote = f"--command={shlex.join(command)}"
        ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", s.nodes[0], *place, remote, "--", "-t"]
        if self.dry_run:
            print(shlex.join(ssh))
            return 0
        return subprocess.run(ssh, stdin=sys.stdin).returncode

"""A slice and the one job on it: created, installed, started, watched, stopped, deleted."""

import dataclasses
import hashlib
import re
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from data_pipeline.common.errors import UserError
from tpu_scripts.accelerators import PRICE_SOURCE, PRICES, Accelerator
from tpu_scripts.cloud import Cloud, CloudError, State
from tpu_scripts.ledger import Ledger
from tpu_scripts.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent

_CODE = "svit/code"
_JOB = f"{_CODE}/tpu_scripts/host/job.sh"

Verdict = Literal["none", "running", "done", "again", "broken"]
"""Of a job on all hosts: not started on some; running; ended well; to be started again; ended with
an error that starting again won't mend."""

_MENDED_BY_THE_USER = (1, 2, 130)  # svit_jax/cli/main.py has all exit codes


@dataclasses.dataclass(frozen=True)
class HostJob:
    """What one host says of its job; `code` of one that has ended."""

    host: str
    state: str
    code: int | None = None


def judge(jobs: list[HostJob]) -> Verdict:
    """What to do about a job whose hosts say this. One host's own error outweighs what the others
    say, which only lost it."""
    codes = [job.code for job in jobs if job.code is not None]
    if any(code in _MENDED_BY_THE_USER for code in codes):
        return "broken"
    if any(codes):
        return "again"
    if any(job.state == "none" for job in jobs):
        return "none"
    return "done" if len(codes) == len(jobs) else "running"


class Slice:
    """The slice of these settings. `say` shows a line; `pause` and `clock` are time's."""

    def __init__(
        self,
        settings: Settings,
        cloud: Cloud,
        ledger: Ledger,
        say: Callable[[str], None] = print,
        pause: Callable[[float], None] = time.sleep,
    ):
        self.settings, self.cloud, self.ledger = settings, cloud, ledger
        self.say, self.pause = say, pause

    def look(self) -> State:
        """Its state, which the ledger is told."""
        state = self.cloud.state()
        if not self.cloud.dry_run:
            # Nodes that are being made are charged from a moment that nobody sees exactly.
            self.ledger.saw(self.settings.per_hour if state == "ready" else 0.0)
        return state

    def require_budget(self) -> None:
        """Raises UserError where ten more minutes would go beyond the budget."""
        s, spent = self.settings, self.ledger.spent
        if spent + s.per_hour / 6 > s.budget:
            raise UserError(
                f"{s.name} has cost up to ${spent:.2f}, and ten minutes more (${s.per_hour:.2f} an "
                f"hour) would go beyond its budget of ${s.budget:.2f}; raise budget, or delete it."
            )

    def create(self) -> State:
        """Asks for the slice where it isn't asked for yet; one that was lost is deleted first."""
        self.require_budget()
        state = self.look()
        if state == "gone":
            self.say(f"{self.settings.name} was preempted or failed: it is deleted, and made anew")
            self.cloud.delete()
            state = "absent"
        if state == "absent":
            self.cloud.create()
            state = "waiting"
        return state

    def wait(self, every: float = 30.0, hours: float = 24.0) -> None:
        """Returns when it is ready. Raises UserError where it is lost, or not ready in time."""
        if self.cloud.dry_run:
            return
        for _ in range(max(1, int(hours * 3600 / every))):
            state = self.look()
            if state == "ready":
                return
            if state in ("gone", "absent"):
                raise UserError(
                    f"{self.settings.name} is {state}: there was no capacity, or a quota or the "
                    "request is wrong; see gcloud compute tpus queued-resources describe."
                )
            self.pause(every)
        raise UserError(
            f"{self.settings.name} was not ready in {hours:g} hours; the request stays in the "
            "queue: wait again, or delete it."
        )

    def install(self) -> None:
        """The checkout's files and their environment on every host, and its buckets mounted; what
        is there already stays."""
        with tempfile.TemporaryDirectory() as scratch:
            archive, name = Path(scratch) / "code.tar.gz", _pack(Path(scratch) / "code.tar.gz")
            target = f"svit-code-{name}.tar.gz"
            self.cloud.copy(archive, target)
        mounts = [
            f"bash tpu_scripts/host/mount.sh {shlex.quote(m.removeprefix('gs://'))}"
            for m in self.settings.mounts
        ]
        stamp = "$HOME/svit/installed"
        steps = " && ".join(
            [
                f"rm -rf {_CODE} {stamp}",
                f"mkdir -p {_CODE}",
                f"tar -xzf {target} -C {_CODE}",
                f"cd {_CODE}",
                self.settings.install,
                f"echo {name} > {stamp}",
            ]
        )
        known = f'[ "$(cat {stamp} 2>/dev/null)" = {name} ]'
        # A mount is lost when a host restarts, so it is looked for each time.
        mount = f" && cd $HOME/{_CODE} && {' && '.join(mounts)}" if mounts else ""
        self.cloud.everywhere(f"({known} || ({steps})) && rm -f $HOME/{target}{mount}")

    def start(self) -> None:
        """The training command on every host; where it runs already it is left alone."""
        self.require_budget()
        command = shlex.join(self.settings.command)
        self.cloud.everywhere(f"cd {_CODE} && bash tpu_scripts/host/job.sh start {command}")

    def doctor(self) -> tuple[str, bool]:
        """What `svit doctor` says on all hosts at once, what several say once, and whether all is
        well. Raises UserError while the job runs, for it has the chips."""
        if any(job.state == "running" for job in self.jobs()):
            raise UserError(
                f"{self.settings.name} is training, and that has the chips; stop it first."
            )
        command = shlex.join(self.settings.doctor)
        # Each host's words at once, at its end: the hosts' lines would mix.
        said = self.cloud.everywhere(
            f"said=$(cd {_CODE} && {command} 2>&1); code=$?; "
            'printf "%s\\nsvit-doctor %s\\n" "$said" "$code"'
        )
        codes = re.findall(r"^svit-doctor (\d+)$", said, re.M)
        lines = [line for line in said.splitlines() if not line.startswith("svit-doctor ")]
        return "\n".join(dict.fromkeys(lines)), self.cloud.dry_run or (
            codes == ["0"] * self.settings.hosts
        )

    def jobs(self) -> list[HostJob]:
        """What every host says; none in a dry run. Raises CloudError where one doesn't answer."""
        answer = self.cloud.everywhere(
            f'bash {_JOB} state 2>/dev/null || echo "svit-job $(hostname) none"'
        )
        found = re.findall(r"^svit-job (\S+) (\w+) ?(\d*)$", answer, re.M)
        if len(found) != self.settings.hosts and not self.cloud.dry_run:
            raise CloudError(f"{len(found)} of {self.settings.hosts} hosts answered")
        return [HostJob(host, state, int(code) if code else None) for host, state, code in found]

    def stop(self) -> None:
        """SIGTERM to the job on every host, and waits until it has saved and ended."""
        self.cloud.everywhere(f"bash {_JOB} stop")

    def delete(self) -> None:
        if self.look() != "absent":
            self.cloud.delete()
        if not self.cloud.dry_run:
            self.look()

    def logs(self, folder: Path, lines: int = 5000) -> list[Path]:
        """The ends of every host's log, in files of this machine named NODE-WORKER.log."""

        def fetch(node: str, worker: int) -> Path:
            path = folder / f"{node}-{worker}.log"
            text = self.cloud.ssh(f"bash {_JOB} log {lines}", node, str(worker))
            if not self.cloud.dry_run:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return path

        workers = range(self.settings.accelerator.hosts)
        places = [(node, worker) for node in self.settings.nodes for worker in workers]
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda place: fetch(*place), places))

    def last_lines(self, lines: int = 3) -> str:
        """Of the first host's log."""
        return self.cloud.ssh(f"bash {_JOB} log {lines}", self.settings.nodes[0], "0").strip()

    def attach(self) -> int:
        return self.cloud.attach(["tail", "-n", "100", "-F", "svit/run/log"])

    def bill(self) -> list[str]:
        """Lines: every TPU of the project that costs money now, and what this one has cost."""
        s = self.settings
        charged = self.cloud.charged()
        if self.cloud.dry_run:
            return ["dry run: nothing was asked of Google Cloud, and nothing was started"]
        lines = []
        for row in charged:
            try:
                found = Accelerator.parse(row["type"])
                own = row["name"] in s.nodes and row["zone"] == s.zone
                price = s.per_chip_hour if own else PRICES[found.generation]
                cost = f"${found.chips * price:.2f} an hour"
            except UserError:
                cost = "at a price that is not in the table"
            lines.append(f"RUNNING NOW: {row['name']} ({row['zone']}, {row['type']}), {cost}")
        lines = lines or [f"nothing runs in project {s.project}"]
        origin = "price_per_chip_hour" if s.price_per_chip_hour else PRICE_SOURCE
        lines.append(
            f"{s.name} has cost up to ${self.ledger.spent:.2f} of ${s.budget:.2f} (chips at "
            f"${s.per_chip_hour:.2f} an hour: {origin})"
        )
        return lines


def _pack(archive: Path) -> str:
    """Writes the checkout's files, those that git doesn't ignore, and returns a hash of them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    digest = hashlib.sha256()
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        for name in sorted(filter(None, listed.split("\0"))):
            file = REPOSITORY / name
            if file.is_file():
                digest.update(name.encode() + b"\0" + file.read_bytes())
                packed.add(file, name)
    return digest.hexdigest()[:12]

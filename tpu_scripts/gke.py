"""The same run on GKE: a JobSet manifest, and xpk's command line for it."""

import shlex
from typing import Any

from data_pipeline.common.errors import UserError
from tpu_scripts.settings import Settings

_PORT = 8471
_GRACE_SECONDS = 120  # to save a checkpoint after SIGTERM


def jobset(settings: Settings) -> dict[str, Any]:
    """A JobSet with a Job for each slice and a pod for each host, as JSON, which kubectl reads too.

    A job that fails takes all others with it, and all are started again, up to max_restarts times:
    training goes on from its newest checkpoint. Raises UserError without `image`, or with `mounts`.
    """
    _check(settings)
    accelerator = settings.accelerator
    chips = {"google.com/tpu": accelerator.chips_per_host}
    container = {
        "name": "svit",
        "image": settings.image,
        "command": list(_command(settings)),
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "resources": {"requests": chips, "limits": chips},
    }
    nodes = {
        "cloud.google.com/gke-tpu-accelerator": accelerator.gke_name,
        "cloud.google.com/gke-tpu-topology": accelerator.topology,
    }
    if settings.capacity == "spot":
        nodes["cloud.google.com/gke-spot"] = "true"
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "nodeSelector": nodes,
        "containers": [container],
    }
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    job = {
        "parallelism": accelerator.hosts,
        "completions": accelerator.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": pod},
    }
    # One Job to a node pool: a slice's hosts must be of one slice.
    exclusive = {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool",
    }
    slices = {"name": "slice", "replicas": settings.slices, "template": {"spec": job}}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": settings.name, "annotations": exclusive},
        "spec": {
            "failurePolicy": {"maxRestarts": settings.max_restarts},
            "replicatedJobs": [slices],
        },
    }


def xpk(settings: Settings) -> str:
    """The command that gives the same run to xpk. Raises UserError without `cluster` or `image`, or
    with `mounts`."""
    if not settings.cluster:
        raise UserError("cluster is missing in the settings; xpk wants it.")
    _check(settings)
    return shlex.join(
        [
            *("xpk", "workload", "create"),
            f"--cluster={settings.cluster}",
            f"--workload={settings.name}",
            f"--tpu-type={settings.accelerator_type}",
            f"--num-slices={settings.slices}",
            f"--docker-image={settings.image}",
            f"--max-restarts={settings.max_restarts}",
            f"--project={settings.project}",
            f"--zone={settings.zone}",
            f"--command={shlex.join(_command(settings))}",
        ]
    )


def _check(settings: Settings) -> None:
    if not settings.image:
        raise UserError("image is missing in the settings; build it with tpu_scripts/Dockerfile.")
    if settings.mounts:
        raise UserError(
            "mounts are of TPU VMs, and GKE knows none of them; leave them out, and read the data "
            "with --data.train=gs://... and --data.cache=FOLDER."
        )


def _command(settings: Settings) -> tuple[str, ...]:
    """In the image, Python is where it always is."""
    return ("python", *settings.command[1:])

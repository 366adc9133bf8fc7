"""The JobSet against Kubeflow's models of the JobSet API, and xpk's command line."""

import argparse
import json
import shlex

import pytest

from tpu_scripts.gke import jobset, xpk
from tpu_scripts.settings import Settings

SETTINGS = {
    "project": "p",
    "zone": "us-west4-a",
    "name": "svit",
    "bucket": "gs://bucket",
    "budget": 1.0,
    "image": "registry/svit:1",
    "cluster": "tpus",
    "train": ("--config=c.py:v5e", "--data.train=a b"),
}


# Hosts and chips of each slice: cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
@pytest.mark.parametrize(
    "accelerator, slices, hosts, chips, topology",
    [
        ("v5litepod-8", 1, 1, 8, "2x4"),
        ("v5litepod-16", 2, 4, 4, "4x4"),
        ("v5p-32", 1, 4, 4, "2x2x4"),
    ],
)
def test_a_job_for_each_slice_and_a_pod_for_each_host(accelerator, slices, hosts, chips, topology):
    made = jobset(Settings(accelerator_type=accelerator, slices=slices, **SETTINGS))
    (replicated,) = made["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert replicated["replicas"] == slices
    assert job["parallelism"] == job["completions"] == hosts
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology
    assert container["command"][:4] == ["python", "-m", "svit_jax.cli", "train"]
    assert container["command"][-1] == "--data.train=a b"


@pytest.mark.parametrize("slices", [1, 2])
def test_the_manifest_is_what_jobset_and_kubernetes_know(slices):
    """Their models refuse other types, and keep no field that they don't know."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    made = jobset(Settings(accelerator_type="v5litepod-16", slices=slices, **SETTINGS))
    found = models.JobsetV1alpha2JobSet.from_json(json.dumps(made))
    assert json.loads(found.to_json()) == json.loads(json.dumps(made))


def test_what_gke_cannot_have(stand_in, capsys):
    stand_in.settings(image="i", cluster="c", mounts=["bucket/data"])
    for command in ("jobset", "xpk"):
        assert stand_in.svit(command) == 1
        assert "read the data with --data.train=gs://" in capsys.readouterr().err
    stand_in.settings(image="i")
    assert stand_in.svit("xpk") == 1
    assert "cluster is missing" in capsys.readouterr().err
    assert stand_in.svit("jobset") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "JobSet", "and nothing else, for kubectl"


def test_xpk_gets_the_same_run():
    line = xpk(Settings(accelerator_type="v5litepod-16", slices=2, **SETTINGS))
    words = shlex.split(line)
    assert words[:3] == ["xpk", "workload", "create"]
    parser = argparse.ArgumentParser()
    for flag in ("cluster", "workload", "tpu-type", "num-slices", "docker-image", "command"):
        parser.add_argument(f"--{flag}", required=True)
    for flag in ("project", "zone", "max-restarts"):
        parser.add_argument(f"--{flag}")
    found = parser.parse_args(words[3:])
    assert (found.tpu_type, found.num_slices) == ("v5litepod-16", "2")
    assert shlex.split(found.command)[-1] == "--data.train=a b"

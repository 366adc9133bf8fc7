"""What a plan says of a step without its data, against the published recipes."""

import pytest

from svit_jax.config import load_config, run_config
from svit_jax.planner import departures, step_work


@pytest.mark.parametrize(
    ("spec", "samples"),
    [
        ("svit_v1_5_13b_finetune.py", 128),
        ("svit_v1_5_13b_finetune.py:packed", 128),
        ("svit_v1_5_13b_lora.py:v5e", 128),
        ("svit_v1_5_13b_pretrain.py", 256),
        ("svit_v1_5_13b_pretrain.py:packed", 256),
    ],
)
def test_published_recipes_depart_in_nothing(configs, spec, samples):
    config = run_config(load_config(f"{configs}/{spec}"), with_data=False)
    work = step_work(config)
    assert work["samples"] == pytest.approx(samples, rel=0.05)
    assert departures(config, work) == []


def test_each_departure_is_a_sentence(configs):
    changed = ("data.batch_size=64", "optim.learning_rate=1e-4", "optim.trainable=.*")
    spec = f"{configs}/svit_v1_5_13b_finetune.py"
    config = run_config(load_config(spec, changed), with_data=False)
    assert departures(config, step_work(config)) == [
        "a step holds 64 samples, not 128",
        "the learning rate is 0.0001, not 2e-05",
        "the vision tower trains, which the recipe keeps frozen",
    ]

"""Dialogues about two pictures: from rows of JSON to a batch, and through a step of training."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from small_run import SMALL_RUN

from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.inputs import Inputs
from svit_jax.training.program import compile_run
from svit_jax.training.start import initial_state

ROWS = {
    "one": (["20.png"], ["<image>\nWhat is red?"]),
    "together": (["40.png", "60.png"], ["<image>\n<image>\nWhich is red?"]),
    "apart": (["60.png", "20.png"], ["What <image> is red?", "And <image>?"]),
}
"""Dialogue -> its pictures, flat greys of the value in their names, and its questions."""

B = 8


@pytest.fixture(scope="module")
def config(make_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    rows = []
    for row_id, (images, questions) in ROWS.items():
        for name in images:
            Image.new("RGB", (30, 30), (int(name[:2]),) * 3).save(root / name)
        texts = [text for question in questions for text in (question, "A ball.")]
        turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
        image = images if len(images) > 1 else images[0]
        rows.append({"id": row_id, "image": image, "conversations": turns})
    (root / "rows.json").write_text(json.dumps(rows))
    write_dataset([root / "rows.json"], root, root / "data", "several")
    data = f"data.train={root / 'data'}", f"data.batch_size={B}", "data.row_length=192"
    return make_run("finetune", *SMALL_RUN, *data)


@pytest.fixture(scope="module")
def inputs(config, tmp_path_factory):
    return Inputs.open(config, tmp_path_factory.mktemp("run"), keep_plan=True)


def test_each_dialogue_sees_its_own_pictures_in_their_order(config, inputs):
    records = open_records(config.data.train)
    patches = config.model.vision.patches
    seen = set()
    for loaded in inputs.loader(config, tuple(range(B)), 0, 2):
        batch = loaded.batch
        assert not loaded.bad
        for b in range(B):
            planned = inputs.plan.row(loaded.step * B + b)
            for segment, (record, place, *_) in enumerate(planned.tolist(), 1):
                dialogue = records[record].dialogues[place]
                index = batch.vision_index[b, batch.segment_ids[b] == segment]
                slots, patch = np.divmod(index[index >= 0], patches)
                greys = [int(name[:2]) for name in ROWS[dialogue.id][0]]
                assert patch.tolist() == list(range(patches)) * len(greys)
                pixels = batch.images[b, slots]
                np.testing.assert_array_equal(
                    pixels.reshape(len(greys), patches, -1),
                    np.broadcast_to(
                        np.array(greys)[:, None, None],
                        (len(greys), patches, pixels[0].size),
                    ),
                )
                seen.add(dialogue.id)
    assert seen == set(ROWS)


def test_a_step_learns_from_both_pictures(config, inputs):
    plan, placement, step = compile_run(config, 3, make_mesh(config.mesh))

    def loss(batch):
        _, metrics = step(initial_state(config, plan), placement.put(batch))
        return float(metrics["loss"]), float(metrics["gradient_norm"])

    (loaded,) = inputs.loader(config, placement.local_rows, 0, 1)
    # A new tower sees nothing in an even grey: its patches' weights sum to zero.
    noise = np.random.default_rng(0).integers(0, 256, loaded.batch.images.shape, np.uint8)
    batch, patches = dataclasses.replace(loaded.batch, images=noise), config.model.vision.patches
    first = loss(batch)
    assert np.isfinite(first).all() and first[1] > 0

    # Which slot a picture stands in says nothing, if the index goes with it.
    index = batch.vision_index
    moved = np.where(index < 0, -1, (1 - index // patches) * patches + index % patches)
    turned = dataclasses.replace(batch, images=noise[:, ::-1].copy(), vision_index=moved)
    assert loss(turned) == pytest.approx(first, rel=1e-5)
    assert loss(dataclasses.replace(batch, vision_index=moved)) != pytest.approx(first, rel=1e-5)

    for slot in range(2):
        changed = noise.copy()
        changed[:, slot] = 255 - changed[:, slot]
        other = dataclasses.replace(batch, images=changed)
        assert loss(other) != pytest.approx(first, rel=1e-5)

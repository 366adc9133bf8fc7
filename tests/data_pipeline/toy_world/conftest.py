"""One small world for all tests of this folder."""

import pytest

from data_pipeline.toy_world.generate import generate_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    report = generate_world(root, train_scenes=150, held_out_scenes=80, novel_scenes=40, seed=5)
    return root, report

"""Stand-ins have the true size, show the boxes, and spare what exists."""

import numpy as np
import pytest
from PIL import Image

from data_pipeline.annotations.scene import PixelBox, Scene, SceneObject
from data_pipeline.annotations.visual_genome import read_visual_genome
from data_pipeline.common.errors import BadRecordError
from data_pipeline.toy_world.stand_ins import draw_stand_ins


def test_stand_in_shows_its_boxes(tmp_path):
    things = (
        SceneObject(1, "cup", PixelBox(10, 20, 40, 60)),
        SceneObject(2, "table", PixelBox(0, 0, 120, 70)),
        SceneObject(3, "cup", PixelBox(80, 30, 110, 60)),
    )
    scene = Scene(1, "VG_100K/1.jpg", 120, 80, objects=things)
    assert draw_stand_ins([scene], tmp_path) == 1
    picture = np.asarray(Image.open(tmp_path / "VG_100K" / "1.jpg").convert("RGB")).astype(int)
    assert picture.shape == (80, 120, 3)
    first, second, table, paper = picture[50, 25], picture[50, 95], picture[65, 60], picture[75, 60]
    assert np.abs(first - second).max() < 12
    assert np.abs(first - table).max() > 12
    assert np.abs(paper - 225).max() < 12


def test_existing_pictures_are_left_alone(tmp_path, real_data):
    scenes = list(read_visual_genome(real_data / "visual_genome_sample"))
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2" / "1.jpg").write_bytes(b"the real one")
    assert draw_stand_ins(scenes, tmp_path) == 4
    assert draw_stand_ins(scenes, tmp_path) == 0
    assert (tmp_path / "VG_100K_2" / "1.jpg").read_bytes() == b"the real one"
    for scene in scenes[1:]:
        with Image.open(tmp_path / scene.image_file) as picture:
            assert picture.size == (scene.width, scene.height)


def test_a_path_out_of_the_folder_is_refused(tmp_path):
    scene = Scene(1, "../1.jpg", 10, 10)
    with pytest.raises(BadRecordError, match="leads out"):
        draw_stand_ins([scene], tmp_path / "images")

"""Official zips as downloaded give the same questions and pictures as their files unpacked."""

import dataclasses
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.archives import ZippedPicture, readable
from svit_jax.evaluation.eval_report import EvalReport, write_eval_report
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.run import evaluate


def zip_up(archive: Path, files: dict[str, Path]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as target:
        for name, path in files.items():
            target.write(path, name)


def zipped_images(images: Path, folder: Path, wrapper: str) -> Path:
    files = {f"{wrapper}{p.relative_to(images)}": p for p in images.rglob("*") if p.is_file()}
    zip_up(folder / "pictures.zip", files)
    return folder


@pytest.mark.parametrize("wrapper", ["", "official/"])
@pytest.mark.parametrize(
    "name", ["vqav2", "gqa", "pope", "scienceqa", "seedbench", "textvqa", "vizwiz", "mmmu"]
)
def test_pictures_are_read_in_their_zip(
    benchmarks: Path, images: Path, tmp_path: Path, name: str, wrapper: str
) -> None:
    folder = zipped_images(images, tmp_path / "zipped", wrapper)
    unpacked = BENCHMARKS[name].read(benchmarks / name, images)
    zipped = BENCHMARKS[name].read(benchmarks / name, folder)
    assert [dataclasses.replace(q, image=None) for q in zipped] == [
        dataclasses.replace(q, image=None) for q in unpacked
    ]
    for one, other in zip(zipped, unpacked, strict=True):
        if other.image is not None:
            assert isinstance(one.image, ZippedPicture) and isinstance(other.image, Path)
            assert readable(one.image) == other.image.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["pictures.zip"]


def test_vqav2_is_read_from_its_zips(benchmarks: Path, images: Path, tmp_path: Path) -> None:
    source, folder = benchmarks / "vqav2", tmp_path / "vqav2"
    expected = BENCHMARKS["vqav2"].read(source, images)
    questions = "v2_OpenEnded_mscoco_val2014_questions.json"
    zip_up(folder / "v2_Questions_Val_mscoco.zip", {questions: source / "questions.json"})
    annotations = "v2_mscoco_val2014_annotations.json"
    zip_up(folder / "v2_Annotations_Val_mscoco.zip", {annotations: source / "annotations.json"})
    for _ in range(2):
        assert BENCHMARKS["vqav2"].read(folder, images) == expected
    assert (folder / questions).read_bytes() == (source / "questions.json").read_bytes()


def test_test_dev_is_told_from_all_of_test2015(
    benchmarks: Path, images: Path, tmp_path: Path
) -> None:
    source, folder = benchmarks / "vqav2" / "questions.json", tmp_path / "vqav2"
    other = tmp_path / "other.json"
    other.write_text('{"questions": []}')
    names = (
        f"v2_OpenEnded_mscoco_{split}_questions.json" for split in ("test-dev2015", "test2015")
    )
    zip_up(folder / "v2_Questions_Test_mscoco.zip", dict(zip(names, (source, other), strict=True)))
    questions = BENCHMARKS["vqav2"].read(folder, images)
    assert [q.question_id for q in questions] == ["7", "8"]
    assert all(q.truth is None for q in questions)


def test_gqa_takes_testdev_balanced_from_a_zip_of_all_splits(
    benchmarks: Path, images: Path, tmp_path: Path
) -> None:
    source = benchmarks / "gqa" / "questions.json"
    splits = ("testdev_balanced", "val_balanced", "test_all")
    files = {f"{split}_questions.json": source for split in splits}
    zip_up(tmp_path / "gqa" / "questions1.2.zip", files)
    expected = BENCHMARKS["gqa"].read(source.parent, images)
    assert BENCHMARKS["gqa"].read(tmp_path / "gqa", images) == expected
    assert not (tmp_path / "gqa" / "test_all_questions.json").exists()


@pytest.mark.parametrize("wrapper", ["", "MME_Benchmark_release_version/MME_Benchmark/"])
def test_mme_is_read_in_its_zip(benchmarks: Path, tmp_path: Path, wrapper: str) -> None:
    source, folder = benchmarks / "mme", tmp_path / "mme"
    (source / "count.txt").write_text(
        "b.png\tOne?\tNo\nb.png\tTwo?\tYes\na.png\tOne?\tYes\na.png\tTwo?\tNo\n"
    )
    files = {f"{wrapper}{p.relative_to(source)}": p for p in source.rglob("*") if p.is_file()}
    hidden = {f"__MACOSX/count/._{name.rsplit('/', 1)[-1]}": p for name, p in files.items()}
    zip_up(folder / "MME_Benchmark_release_version.zip", hidden | files)
    unpacked = BENCHMARKS["mme"].read(source, source)
    zipped = BENCHMARKS["mme"].read(folder, folder)
    assert [q.picture for q in zipped[:4]] == ["count/b.png"] * 2 + ["count/a.png"] * 2
    assert [dataclasses.replace(q, image=None) for q in zipped] == [
        dataclasses.replace(q, image=None) for q in unpacked
    ]
    for one, other in zip(zipped, unpacked, strict=True):
        assert isinstance(one.image, ZippedPicture) and isinstance(other.image, Path)
        assert readable(one.image) == other.image.read_bytes()
    assert len(list(folder.iterdir())) == 1


def test_zipped_pictures_are_shown_and_reported(
    benchmarks: Path, images: Path, tmp_path: Path
) -> None:
    folder = zipped_images(images, tmp_path / "zipped", "")
    shown: list[object] = []

    def answer_all(asked: Iterable[tuple[object, str]]) -> Iterator[str]:
        for picture, _ in asked:
            shown.append(picture)
            yield "blue"

    out = tmp_path / "out"
    runs = evaluate(answer_all, "m", ["gqa"], benchmarks, folder, out)
    assert shown == [(images / "VG_100K" / f"{n}.jpg").read_bytes() for n in (2, 1)]
    write_eval_report(out, EvalReport("m", "toy", runs))
    assert (out / "report.html").read_text().count("data:image/jpeg") == 2


def test_what_is_missing_is_named(benchmarks: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    zip_up(folder / "half.zip", {"VG_100K/1.jpg": images / "VG_100K" / "1.jpg"})
    with pytest.raises(UserError, match=r"picture 2\.jpg is not in .*, which holds half\.zip"):
        BENCHMARKS["gqa"].read(benchmarks / "gqa", folder)
    with pytest.raises(UserError, match=r"MME: .* none of the subtasks' folders .* but half\.zip"):
        BENCHMARKS["mme"].read(folder, None)
    with pytest.raises(UserError, match="put the official file, or the zip that holds it, there"):
        BENCHMARKS["gqa"].read(folder, None)
    shutil.copy(benchmarks / "gqa" / "questions.json", folder / "broken.zip")
    with pytest.raises(UserError, match=r"archive .*broken\.zip cannot be read"):
        BENCHMARKS["gqa"].read(folder, None)

"""Annotation files of any of the known forms -> scenes.jsonl."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from data_pipeline.annotations.coco import read_captions, read_coco_instances
from data_pipeline.annotations.duplicates import merge_duplicates
from data_pipeline.annotations.own import read_own
from data_pipeline.annotations.picture_size import PictureSizes
from data_pipeline.annotations.scene import Scene, write_scenes
from data_pipeline.annotations.visual_genome import read_visual_genome
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine


@dataclasses.dataclass(frozen=True)
class AnnotateReport:
    """What was written and what was not.

    `without` counts scenes that lack captions, objects or regions, or ("anything") all of them;
    `merged` the objects that joined another; `rejected` bad records by reason (listed one by one
    in `quarantine`); `unmatched` attributes and relations of objects that are not there.
    """

    scenes: int
    objects: int
    regions: int
    captions: int
    without: dict[str, int]
    merged: int
    rejected: dict[str, int]
    unmatched: dict[str, int]
    quarantine: str


def annotate(
    vg_folder: PathLike,
    caption_files: Sequence[PathLike],
    out: PathLike,
    *,
    max_bad: int | None = None,
    merge_overlap: float | None = None,
) -> AnnotateReport:
    """Writes the scenes of a Visual Genome folder to `out` (JSONL) and returns the counts.

    `caption_files` are COCO captions files; of a picture that stands in several, the first counts.
    Rejected records are listed beside `out` (`scenes.rejected.jsonl`); past `max_bad` of them the
    run stops. `merge_overlap` is None to keep duplicates, as SVIT does, or the intersection over
    union from which on objects of one name are taken for one. Raises UserError; `out` is then not
    written.
    """
    rejected = _quarantine(out, max_bad)
    captions = _captions(caption_files, rejected)
    unmatched: Counter[str] = Counter()
    scenes = read_visual_genome(vg_folder, captions, rejected, unmatched)
    source = f"Visual Genome folder {vg_folder}"
    return _write(scenes, source, out, rejected, merge_overlap, captions, unmatched)


def annotate_coco(
    instances_file: PathLike,
    caption_files: Sequence[PathLike],
    out: PathLike,
    *,
    images: PathLike | None = None,
    max_bad: int | None = None,
    merge_overlap: float | None = None,
) -> AnnotateReport:
    """`annotate` for a COCO instances file; sizes are held to the pictures in folder `images`."""
    rejected = _quarantine(out, max_bad)
    captions = _captions(caption_files, rejected)
    sizes = None if images is None else PictureSizes(images)
    scenes = read_coco_instances(instances_file, captions, rejected, sizes)
    source = f"COCO instances file {instances_file}"
    return _write(scenes, source, out, rejected, merge_overlap, captions)


def annotate_own(
    annotations: PathLike,
    images: PathLike,
    out: PathLike,
    *,
    max_bad: int | None = None,
    merge_overlap: float | None = None,
) -> AnnotateReport:
    """`annotate` for a JSONL file about the pictures in folder `images` (`own.read_own`)."""
    rejected = _quarantine(out, max_bad)
    scenes = read_own(annotations, PictureSizes(images), rejected)
    return _write(scenes, f"annotations file {annotations}", out, rejected, merge_overlap)


def _quarantine(out: PathLike, max_bad: int | None) -> Quarantine:
    return Quarantine(epath.Path(out).with_suffix(".rejected.jsonl"), max_bad)


def _captions(files: Sequence[PathLike], rejected: Quarantine) -> dict[int, tuple[str, ...]]:
    captions: dict[int, tuple[str, ...]] = {}
    for path in files:
        for coco_id, texts in read_captions(path, rejected).items():
            captions.setdefault(coco_id, texts)
    return captions


def _write(
    scenes: Iterable[Scene],
    source: str,
    out: PathLike,
    rejected: Quarantine,
    merge_overlap: float | None,
    captions: dict[int, tuple[str, ...]] | None = None,
    unmatched: Counter[str] | None = None,
) -> AnnotateReport:
    if merge_overlap is not None and not 0 < merge_overlap <= 1:
        raise UserError(
            f"duplicates cannot be merged at an overlap of {merge_overlap}; give a share of the "
            "joint area, more than 0 and at most 1, such as 0.7."
        )
    counts: Counter[str] = Counter()
    without: Counter[str] = Counter()

    def counted() -> Iterator[Scene]:
        for scene in progress(scenes, "annotate", unit="scene"):
            whole = scene
            if merge_overlap is not None:
                scene = merge_duplicates(scene, merge_overlap)
            counts["merged"] += len(whole.objects) - len(scene.objects)
            parts = ("captions", "objects", "regions")
            sizes = {part: len(getattr(scene, part)) for part in parts}
            counts.update(sizes)
            without.update(part for part, size in sizes.items() if not size)
            without["anything"] += not any(sizes.values())
            yield scene
        rejected.save()
        _require_content(source, counts, rejected, captions)

    written = write_scenes(out, counted())
    return AnnotateReport(
        scenes=written,
        objects=counts["objects"],
        regions=counts["regions"],
        captions=counts["captions"],
        without={part: without[part] for part in ("captions", "objects", "regions", "anything")},
        merged=counts["merged"],
        rejected=rejected.counts(),
        unmatched=dict(unmatched or {}),
        quarantine=str(rejected.path),
    )


def _require_content(
    source: str,
    counts: Counter[str],
    rejected: Quarantine,
    captions: dict[int, tuple[str, ...]] | None,
) -> None:
    """Raises UserError where nothing came out, or captions were given and none found a picture."""
    if not counts["objects"] + counts["regions"] + counts["captions"]:
        raise UserError(
            f"{source} holds no object, no region and no caption that could be used "
            f"({len(rejected)} records were rejected, see {rejected.path}); check that these are "
            "the right files."
        )
    if captions and not counts["captions"]:
        raise UserError(
            f"none of the {len(captions)} pictures in the captions files is one of {source} (by "
            "coco_id there, or by image id in COCO's own files); give the captions of these "
            "pictures, or leave --coco out."
        )

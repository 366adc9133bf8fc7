"""Visual Genome and COCO files -> scenes.jsonl."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

from etils import epath

from data_pipeline.annotations.coco import read_captions
from data_pipeline.annotations.scene import Scene, write_scenes
from data_pipeline.annotations.visual_genome import read_visual_genome
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine


@dataclasses.dataclass(frozen=True)
class AnnotateReport:
    """What was written and what was not: `rejected` counts bad records by reason (listed one by one
    in `quarantine`); `unmatched` counts attributes and relations of objects that are not there."""

    scenes: int
    objects: int
    regions: int
    captions: int
    rejected: dict[str, int]
    unmatched: dict[str, int]
    quarantine: str


def annotate(
    vg_folder: PathLike,
    caption_files: Sequence[PathLike],
    out: PathLike,
    *,
    quarantine: PathLike | None = None,
    max_bad: int | None = None,
) -> AnnotateReport:
    """Writes the scenes of a Visual Genome folder to `out` (JSONL) and returns the counts.

    `caption_files` are COCO captions files; of a picture that stands in several, the first counts.
    Rejected records are listed in `quarantine`, by default beside `out` (`scenes.rejected.jsonl`);
    past `max_bad` of them the run stops. Raises UserError; `out` is then not written.
    """
    captions: dict[int, tuple[str, ...]] = {}
    for path in caption_files:
        for coco_id, texts in read_captions(path).items():
            captions.setdefault(coco_id, texts)

    target = epath.Path(out)
    rejected = Quarantine(quarantine or target.with_suffix(".rejected.jsonl"), max_bad)
    unmatched: Counter[str] = Counter()
    counts: Counter[str] = Counter()

    def counted() -> Iterator[Scene]:
        scenes = read_visual_genome(vg_folder, captions, rejected, unmatched)
        for scene in progress(scenes, "reading Visual Genome", unit="scene"):
            counts["objects"] += len(scene.objects)
            counts["regions"] += len(scene.regions)
            counts["captions"] += len(scene.captions)
            yield scene
        if not counts["objects"] + counts["regions"]:
            raise UserError(
                f"the Visual Genome folder {vg_folder} holds no object and no region that could be "
                f"used ({len(rejected)} records were rejected); check that these are its files."
            )

    written = write_scenes(target, counted())
    rejected.save()
    return AnnotateReport(
        scenes=written,
        objects=counts["objects"],
        regions=counts["regions"],
        captions=counts["captions"],
        rejected=rejected.counts(),
        unmatched=dict(unmatched),
        quarantine=str(rejected.path),
    )

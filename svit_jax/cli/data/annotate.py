"""`svit data toy` and `svit data annotate`: where scenes come from."""

import argparse
from typing import Any

from svit_jax.cli.job import add_job, show


def toy_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.toy_world.generate import generate_world

        report = generate_world(
            options.out,
            train_scenes=options.scenes,
            held_out_scenes=options.held_out,
            novel_scenes=options.novel,
            seed=options.seed,
        )
        show(options, report, f"{report.scenes} scenes in {report.root}")

    job = add_job(
        steps,
        "toy",
        run,
        "draw a toy world: pictures, Visual Genome and COCO files, benchmark files with truth",
        "svit data toy --out toy --scenes 4000",
    )
    job.add_argument("--out", required=True, help="the world's folder")
    job.add_argument("--scenes", type=int, default=4000, help="training scenes")
    job.add_argument("--held-out", type=int, default=300, help="held-out scenes")
    job.add_argument("--novel", type=int, default=100, help="scenes with unseen combinations")
    job.add_argument("--seed", type=int, default=0)


def annotate_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.annotations.annotate import annotate

        report = annotate(options.vg, options.coco, options.out, max_bad=options.max_bad)
        if options.stand_ins:
            from data_pipeline.annotations.scene import read_scenes
            from data_pipeline.toy_world.stand_ins import draw_stand_ins

            draw_stand_ins(read_scenes(options.out), options.stand_ins)
        show(
            options,
            report,
            f"{report.scenes} scenes, {report.objects} objects, {report.regions} regions in "
            f"{options.out}; rejected: {sum(report.rejected.values())} ({report.quarantine})",
        )

    job = add_job(
        steps,
        "annotate",
        run,
        "Visual Genome and COCO captions files -> scenes.jsonl",
        "svit data annotate --vg visual_genome --coco captions_train2014.json --out scenes.jsonl",
    )
    job.add_argument("--vg", required=True, help="folder of the Visual Genome JSON files")
    job.add_argument("--coco", action="append", default=[], help="a COCO captions file; repeatable")
    job.add_argument("--out", required=True, help="the scenes file to write")
    job.add_argument("--max-bad", type=int, help="stop after this many rejected records")
    job.add_argument(
        "--stand-ins",
        metavar="IMAGES",
        help="draw a stand-in picture of the true size here for each scene that has none",
    )

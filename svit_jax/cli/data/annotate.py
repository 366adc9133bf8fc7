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
        report = _annotate(options)
        if options.stand_ins:
            from data_pipeline.annotations.scene import read_scenes
            from data_pipeline.toy_world.stand_ins import draw_stand_ins

            draw_stand_ins(read_scenes(options.out), options.stand_ins)
        show(
            options,
            report,
            f"{report.scenes} scenes, {report.objects} objects, {report.regions} regions, "
            f"{report.captions} captions in {options.out}; rejected: "
            f"{sum(report.rejected.values())} ({report.quarantine})",
        )

    job = add_job(
        steps,
        "annotate",
        run,
        "Visual Genome, COCO or your own annotations -> scenes.jsonl",
        "svit data annotate --vg visual_genome --coco captions_train2014.json --out scenes.jsonl",
    )
    source = job.add_mutually_exclusive_group(required=True)
    source.add_argument("--vg", help="folder of the Visual Genome JSON files, zipped or not")
    source.add_argument("--own", metavar="JSONL", help="a line for each of your own pictures")
    source.add_argument(
        "--coco-instances", metavar="JSON", help="a file in COCO's instances format"
    )
    job.add_argument("--coco", action="append", default=[], help="a COCO captions file; repeatable")
    job.add_argument(
        "--images",
        help="folder of the pictures: with --own for their sizes, with --coco-instances to check",
    )
    job.add_argument("--out", required=True, help="the scenes file to write")
    job.add_argument(
        "--merge-duplicates",
        type=float,
        metavar="IOU",
        help="make one of objects of one name that overlap at least so much (SVIT keeps all)",
    )
    job.add_argument("--max-bad", type=int, help="stop after this many rejected records")
    job.add_argument(
        "--stand-ins",
        metavar="IMAGES",
        help="draw a stand-in picture of the true size here for each scene that has none",
    )


def _annotate(options: argparse.Namespace) -> Any:
    from data_pipeline.annotations.annotate import annotate, annotate_coco, annotate_own
    from data_pipeline.common.errors import UserError

    limits = {"max_bad": options.max_bad, "merge_overlap": options.merge_duplicates}
    if options.coco_instances:
        return annotate_coco(
            options.coco_instances, options.coco, options.out, images=options.images, **limits
        )
    if options.own:
        if options.coco:
            raise UserError(
                "--coco was given with --own, whose file holds the captions itself; leave it out."
            )
        if not options.images:
            raise UserError("--own needs --images FOLDER, where the pictures are; add it.")
        return annotate_own(options.own, options.images, options.out, **limits)
    if options.images:
        raise UserError(
            "--images was given with --vg, whose files hold the pictures' sizes; leave it out."
        )
    return annotate(options.vg, options.coco, options.out, **limits)

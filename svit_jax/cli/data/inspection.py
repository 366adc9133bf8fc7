"""`svit data check`, `stats` and `browse`: whether a dataset is sound, and what is in it."""

import argparse
import contextlib
import sys
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.data.mixture import add_sources, check_sources_of
from svit_jax.cli.job import add_job, show


def check_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        if options.sources:
            check_sources_of(options)
            return
        from data_pipeline.inspection.check import check_dataset
        from data_pipeline.inspection.check_table import check_table

        _require_rows_for_images(options)
        report = check_dataset(
            options.llava,
            options.images,
            options.data,
            split=options.split,
            reading=_reading(options),
            sample=options.sample,
            seed=options.seed,
            exclude_ids=options.exclude_ids,
            strict=options.strict,
            report_path=options.report,
        )
        show(options, report, check_table(report))
        if not report.passed:
            raise UserError(
                f"the check found {report.errors} errors and {report.warnings} warnings; mend or "
                "leave out what is listed (--report FILE lists all of it)."
            )

    job = add_job(
        steps,
        "check",
        run,
        "validate a dataset from JSON to shard; exit code 1 on errors",
        "svit data check --llava instructions.json --images images --data dataset",
    )
    _add_inputs(job)
    _add_reading(job)
    job.add_argument("--sample", type=int, help="decode so many pictures (default: all)")
    job.add_argument("--exclude-ids", metavar="FILE", help="ids, one a line, that must not occur")
    job.add_argument("--strict", action="store_true", help="warnings fail too")
    job.add_argument("--report", metavar="FILE", help="write every finding here, as JSONL")
    job.add_argument("--seed", type=int, default=0, help="of the sample")
    add_sources(job)


def stats_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.inspection.statistics import dataset_statistics
        from data_pipeline.inspection.stats_page import statistics_line, write_stats_page

        _require_rows_for_images(options)
        statistics = dataset_statistics(
            options.llava, options.images, options.data, options.split, _reading(options)
        )
        if options.out:
            inputs = ", ".join(options.llava or [options.data])
            write_stats_page(statistics, options.out, f"What {inputs} holds")
        line = statistics_line(statistics)
        show(options, statistics, f"{line} Drawn in {options.out}." if options.out else line)

    job = add_job(
        steps,
        "stats",
        run,
        "draw lengths, kinds, first words, boxes, picture sizes, yes and no as an HTML page",
        "svit data stats --data dataset --out stats.html",
    )
    _add_inputs(job)
    _add_reading(job)
    job.add_argument("--out", help="the HTML page to write")


def browse_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        if options.serve is not None:
            _serve(options)
            return
        from data_pipeline.inspection.browse_page import write_browse_page

        report = write_browse_page(
            options.data,
            options.out,
            options.split,
            options.limit,
            options.seed,
            options.picture_side,
        )
        line = f"{report.records} records in {report.path} ({report.bytes / 1e6:.1f} MB)"
        if report.faults:
            line += f"; {report.faults} can't be shown whole: `svit data check` says why"
        show(options, report, line)

    job = add_job(
        steps,
        "browse",
        run,
        "page through records with boxes drawn, search and filters: an HTML file, or served",
        "svit data browse --data dataset --out browse.html --limit 200",
    )
    job.add_argument("--data", required=True, help="a dataset's folder of shards")
    job.add_argument("--split", default="train")
    form = job.add_mutually_exclusive_group(required=True)
    form.add_argument("--out", help="the HTML file to write; it needs nothing but itself")
    form.add_argument(
        "--serve",
        type=int,
        metavar="PORT",
        help="serve all records on 127.0.0.1 instead, reading each as it is asked for",
    )
    job.add_argument("--limit", type=int, default=200, help="records in the file, drawn by --seed")
    job.add_argument("--seed", type=int, default=0)
    job.add_argument(
        "--picture-side", type=int, default=640, help="pixels; larger ones are scaled in the file"
    )


def _serve(options: argparse.Namespace) -> None:
    from data_pipeline.inspection.server import BrowseServer
    from data_pipeline.records.source import open_records

    source = open_records(options.data, options.split)
    with BrowseServer(source, options.serve) as server:
        show(options, {"url": server.url}, f"{len(source):,} records at {server.url}; Ctrl-C ends.")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _add_inputs(job: argparse.ArgumentParser) -> None:
    job.add_argument("--llava", nargs="+", default=(), help="LLaVA-format JSON files")
    job.add_argument("--images", help="folder that picture paths are relative to")
    job.add_argument("--data", help="a dataset's folder of shards")
    job.add_argument("--split", default="train")


def _add_reading(job: argparse.ArgumentParser) -> None:
    job.add_argument("--tokenizer", help="tokenizer.model: count tokens as training reads them")
    job.add_argument("--row-length", type=int, default=2048, help="most tokens of a dialogue")
    job.add_argument("--template", default="v1", help="v1, llava_v1, plain")
    job.add_argument("--patches", type=int, default=576, help="tokens of a picture")


def _require_rows_for_images(options: argparse.Namespace) -> None:
    if options.images and not options.llava:
        raise UserError("--images needs --llava: a dataset's shards hold their pictures.")


def _reading(options: argparse.Namespace) -> Any:
    if options.tokenizer is None:
        return None
    from data_pipeline.inspection.reading import Reading
    from data_pipeline.text.templates import get_template
    from data_pipeline.text.tokenizer import Tokenizer

    return Reading(
        Tokenizer(options.tokenizer),
        get_template(options.template),
        options.patches,
        options.row_length,
    )

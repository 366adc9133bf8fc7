"""`svit data mix` and `svit data check --sources`: the 665K mixture and its downloads."""

import argparse
from collections.abc import Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.job import add_job, show


def mix_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.recipe.mixture import mix
        from data_pipeline.recipe.mixture_spec import SVIT_MIX_665K, read_mixture

        report = mix(
            read_mixture(options.mixture or SVIT_MIX_665K),
            options.out,
            _inputs(options.input),
            options.downloads,
            seed=options.seed,
            shuffle=not options.keep_order,
            allow_partial=options.allow_partial,
            max_bad=options.max_bad,
        )
        notes = "".join(f"\nnote: {note}" for note in report.notes)
        show(
            options,
            report,
            f"{report.rows} rows in {options.out} ({report.manifest}): {report.parts}; "
            f"pictures: {report.folders}{notes}",
        )

    job = add_job(
        steps,
        "mix",
        run,
        "files of instructions -> one mixture (SVIT-mix-665K), counted and shuffled",
        "svit data mix --downloads downloads --input svit_core=core.json --out svit_mix_665k.json",
    )
    _mixture_options(job)
    job.add_argument("--out", required=True, help="the LLaVA-format JSON to write")
    job.add_argument("--seed", type=int, default=0, help="of the shuffle")
    job.add_argument("--keep-order", action="store_true", help="part after part, not shuffled")
    job.add_argument(
        "--allow-partial", action="store_true", help="mix what there is; wrong counts become notes"
    )
    job.add_argument("--max-bad", type=int, help="stop after this many rows of no part")


def add_sources(job: argparse.ArgumentParser) -> None:
    """The options of `svit data check --sources`."""
    group = job.add_argument_group("downloads (--sources)")
    group.add_argument(
        "--sources",
        action="store_true",
        help="check a mixture's downloads instead: which are missing or damaged, where they come "
        "from, how to mend the known cases (with --images)",
    )
    _mixture_options(group)
    group.add_argument("--rows", metavar="JSON", help="look for each picture of this file's rows")
    group.add_argument("--decode", action="store_true", help="open each picture, too (slow)")
    group.add_argument("--missing", metavar="JSONL", help="list the missing and damaged ones here")
    group.add_argument(
        "--mend", metavar="JSON", help="write the rows with the pictures' names as they were found"
    )


def check_sources_of(options: argparse.Namespace) -> None:
    from data_pipeline.recipe.mixture_spec import SVIT_MIX_665K, read_mixture
    from data_pipeline.recipe.sources import check_sources

    if not options.images:
        raise UserError("--sources needs --images, the folder that picture paths are relative to.")
    report = check_sources(
        options.images,
        read_mixture(options.mixture or SVIT_MIX_665K),
        options.rows,
        _inputs(options.input),
        options.downloads,
        decode=options.decode,
        missing=options.missing,
        mend=options.mend,
    )
    show(options, report, report.text())
    if report.problems:
        raise UserError(report.problems)


def _mixture_options(job: Any) -> None:
    job.add_argument("--mixture", metavar="YAML", help="its description (default: SVIT-mix-665K)")
    job.add_argument("--downloads", help="folder of the inputs, under their official names")
    job.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="where an input is, or a part's own file; repeatable",
    )


def _inputs(texts: Sequence[str]) -> dict[str, str]:
    given = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not name or not equals or not path:
            raise UserError(f"--input {text} is not NAME=FILE.")
        given[name] = path
    return given

"""A check's result as text for a terminal."""

from collections.abc import Mapping

from data_pipeline.inspection.check import CheckReport

_LONGEST_EXAMPLE = 160


def check_table(report: CheckReport) -> str:
    """What was looked at, then each defect with its count and first examples, errors first."""
    lines = _looked_at(report.counts)
    for severity in ("error", "warning"):
        found = {name: one for name, one in report.found.items() if one.severity == severity}
        if found:
            lines += ["", f"{severity}s"]
        for name, one in found.items():
            lines.append(f"{one.count:>10,}  {one.says}  ({name})")
            for where, detail in one.examples:
                lines.append(f"{'':14}{_shortened(f'{where}: {detail}')}")
    lines += ["", f"{report.errors:,} errors, {report.warnings:,} warnings"]
    return "\n".join(lines)


def _looked_at(counts: Mapping[str, int]) -> list[str]:
    lines = []
    if "rows" in counts:
        lines.append(f"rows        {counts['rows']:,}")
    if "shards" in counts:
        lines.append(
            f"shards      {counts['shards']:,} with {counts.get('records', 0):,} records, "
            f"{counts.get('record_dialogues', 0):,} dialogues"
        )
    lines.append(f"dialogues   {counts.get('dialogues', 0):,}, {counts.get('boxes', 0):,} boxes")
    if "rows" in counts and "pictures" not in counts:
        lines.append("pictures    not looked at in their folder: give it as --images")
    for what, place in (("pictures", "in the folder"), ("record_pictures", "in the shards")):
        if what in counts:
            decoded = counts.get(f"{what}_decoded", 0)
            lines.append(f"pictures    {counts[what]:,} {place}, {decoded:,} decoded")
    if counts.get("kept_tokens"):
        kept, learned = counts["kept_tokens"], counts["learned_tokens"]
        lines.append(
            f"tokens      {counts['tokens']:,}, of them {counts['tokens'] - kept:,} cut off; of "
            f"the rest {learned / kept:.1%} learned, {1 - learned / kept:.1%} masked "
            f"({counts['picture_tokens'] / kept:.1%} are pictures)"
        )
    return lines


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST_EXAMPLE else f"{flat[: _LONGEST_EXAMPLE - 3]}..."

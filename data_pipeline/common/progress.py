"""Progress for long work: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def note(text: str) -> None:
    """A line on standard error that tears no bar."""
    tqdm.write(text, file=sys.stderr)


def progress_bar(
    total: int | None,
    description: str,
    unit: str = "it",
    initial: int = 0,
    only_on_a_terminal: bool = False,
    shown: bool = True,
) -> tqdm:
    """A bar to `update` by hand, on standard error; where that is no terminal it is written rarely,
    or, with `only_on_a_terminal`, not at all: its `disable` says so."""
    interactive = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        dynamic_ncols=interactive,
        mininterval=0.2 if interactive else 10.0,
        file=sys.stderr,
        disable=not shown or (only_on_a_terminal and not interactive),
    )


def progress(
    items: Iterable[T], description: str, total: int | None = None, unit: str = "it"
) -> Iterator[T]:
    """Yields the items and shows how far it is."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(total, description, unit) as bar:
        for item in items:
            yield item
            bar.update()

"""A progress bar on stderr, if it is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rankscope.errors import printable


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float, str], None] | None]:
    """Draw a bar while the block runs.

    Yields the function that moves it, which takes the share done (0 to 1) and what is being worked
    on; or None if stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[label]}", style="dim", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0, label="")

        def move(share: float, label: str) -> None:
            bar.update(task, completed=share, label=f"{printable(label)}{_fetched()}")

        yield move


def _fetched() -> str:
    """How much was fetched from elsewhere, if anything was."""
    from rankscope.checkpoints.limits import size_text
    from rankscope.checkpoints.remote.ledger import fetched

    size = fetched().size
    return f" · {size_text(size)} fetched" if size else ""

"""SHOW: how learning goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fcpts_onnx.results import Progress

__all__ = ["bar_reporter", "count_reporter", "progress_reporter"]

_LINES = 10  # over a whole run, where there is no terminal


@contextmanager
def progress_reporter(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A function that shows each report it is given."""
    if not console.is_terminal:
        yield _lines(console)
        return
    with bar_reporter(console) as show:
        yield show


@contextmanager
def bar_reporter(console: Console) -> Iterator[Callable[[Progress], None]]:
    """The same of one run or several, on a terminal only."""
    columns = (
        TextColumn("Learning"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("learn", total=None, start=False, state="to start")

        def show(progress: Progress) -> None:
            if progress.step < bar.tasks[0].completed:  # the next run
                bar.reset(task)
            bar.start_task(task)
            bar.update(
                task,
                total=progress.steps,
                completed=progress.step,
                state=f"loss {progress.loss:z.3f}  sparsity {progress.sparsity:.1%}",
            )

        yield show


@contextmanager
def count_reporter(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that shows how many of how many are done, on a terminal only."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(console: Console) -> Callable[[Progress], None]:
    """Plain lines, one for every tenth of the run."""
    shown = 0

    def show(progress: Progress) -> None:
        nonlocal shown
        tenths = _LINES * progress.step // progress.steps
        if tenths == shown:
            return
        shown = tenths
        console.print(
            f"step {progress.step}/{progress.steps}  loss {progress.loss:z.4f}  "
            f"sparsity {progress.sparsity:.2%}  {progress.seconds_left:.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    return show

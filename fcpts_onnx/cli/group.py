"""The command that all others belong to, and what they share."""

from __future__ import annotations

import io
import logging
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from rich.console import Console

from fcpts_onnx.errors import FcptsError, Interrupted
from fcpts_onnx.evidence import versions
from fcpts_onnx.files import write_text
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.team import is_first
from fcpts_onnx.texts import printable, to_json

__all__ = [
    "COMMAND",
    "check_apart",
    "console_of",
    "main",
    "settings_of",
    "stop_with",
    "write_json",
]

logger = logging.getLogger(__name__)

_BY_SIGNAL = 128

_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation")

COMMAND = "fcpts_onnx.command"
"""The whole line, in what click keeps of an invocation."""

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    """Shows what a user can put right without a traceback, and tells Ctrl-C by its exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        # On Windows click would take the patterns of --include and --exclude for names of files.
        return super().main(*args, **{"windows_expand_args": False, **extra})

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        line = f"{info_name} {shlex.join(args)}"
        context = super().make_context(info_name, args, parent, **extra)
        context.meta.setdefault(COMMAND, line)
        return context

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _terminable():
                return super().invoke(ctx)
        except FcptsError as error:
            raise click.ClickException(printable(str(error))) from error
        except (MemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            raise click.ClickException(
                "Out of memory. Let prune learn in less (--memory), give fewer samples, or close "
                "what else runs."
            ) from error
        except KeyboardInterrupt as stop:
            stop_with(ctx, stop)


def _is_of_memory(error: Exception) -> bool:
    """Whether Python, torch or onnxruntime found no more memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what is under way in good order: nothing half written is left."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) in (signal.SIG_IGN, None):
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(cls=_Group, context_settings=_CONTEXT)
@click.version_option(package_name="fcpts-onnx")
@click.option(
    "--verbose",
    "-v",
    count=True,
    help="Say on stderr what is done and how long it took; -vv all that a report of a bug needs.",
)
@click.pass_context
def main(context: click.Context, /, verbose: int) -> None:
    """Make a trained ONNX model sparse after training, with unlabelled images only.

    \b
    Examples:
      fcpts-onnx demo
      fcpts-onnx inspect model.onnx
      fcpts-onnx prune model.onnx sparse.onnx --target 0.7 --calib images/
      fcpts-onnx validate model.onnx sparse.onnx --calib images/
      fcpts-onnx eval sparse.onnx --data labelled/
      fcpts-onnx bench model.onnx sparse.onnx
      fcpts-onnx compare model.onnx --calib images/ --data labelled/ --out results/
      fcpts-onnx -vv prune model.onnx sparse.onnx --target 0.7 --calib images/
    """
    context.with_resource(_logged(verbose))
    logger.debug("%s", context.meta[COMMAND])
    logger.debug("%s", ", ".join(f"{name} {number}" for name, number in versions().items()))


@contextmanager
def _logged(verbose: int) -> Iterator[None]:
    """Have on stderr what the package logs; with -vv warnings of others too, which go nowhere else.

    All is as it was in the end: a program may call the command line more than once.
    """
    handler: logging.Handler = logging.StreamHandler() if verbose else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    own, others = logging.getLogger("fcpts_onnx"), logging.getLogger("py.warnings")
    unheard = handler if verbose > 1 else logging.NullHandler()
    level = own.level
    own.setLevel(_LEVELS[min(verbose, len(_LEVELS) - 1)])
    own.addHandler(handler)
    others.addHandler(unheard)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        others.removeHandler(unheard)
        own.removeHandler(handler)
        own.setLevel(level)


def settings_of(preprocess: str, options: dict[str, Any]) -> Preprocess:
    """The preprocessing of the command line; its options are taken out of `options`."""
    keys = ("mean", "std", "size", "resize", "fit", "channels", "layout")
    return Preprocess.named(preprocess).overridden(**{key: options.pop(key) for key in keys})


def stop_with(context: click.Context, stop: KeyboardInterrupt, left: str | None = None) -> NoReturn:
    """End with the exit code of the signal that asked to, and say what is left."""
    found = stop if isinstance(stop, Interrupted) else Interrupted(signal.SIGINT)
    click.echo(str(found if left is None else Interrupted(found.signal, left)), err=True)
    context.exit(_BY_SIGNAL + found.signal)


def console_of(quiet: bool) -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may have letters that it cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(quiet=quiet or not is_first(), file=sys.stdout)


def check_apart(files: Mapping[str, Path | None]) -> None:
    """See that each name stands for a file of its own, if it stands for one."""
    seen: dict[Path, str] = {}
    for name, file in files.items():
        if file is None:
            continue
        if (other := seen.setdefault(file.resolve(), name)) != name:
            raise click.UsageError(f"{name} names {other} itself.")


def write_json(file: Path | None, result: Any) -> None:
    if file is not None and is_first():
        write_text(file, to_json(result))

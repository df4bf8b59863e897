"""The command that all others belong to, and what they share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.team import is_first
from fcpts_onnx.texts import printable, to_json
from fcpts_onnx.write import write_text

__all__ = [
    "COMMAND",
    "INTERRUPTED",
    "check_apart",
    "console_of",
    "main",
    "settings_of",
    "write_json",
]

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

COMMAND = "fcpts_onnx.command"
"""The whole line, in what click keeps of an invocation."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    """Shows what a user can put right without a traceback, and tells Ctrl-C by its exit code."""

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
            return super().invoke(ctx)
        except FcptsError as error:
            raise click.ClickException(printable(str(error))) from error
        except KeyboardInterrupt:
            click.echo("Interrupted; nothing was written.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group, context_settings=_CONTEXT)
@click.version_option(package_name="fcpts-onnx")
def main() -> None:
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
    """


def settings_of(preprocess: str, options: dict[str, Any]) -> Preprocess:
    """The preprocessing of the command line; its options are taken out of `options`."""
    keys = ("mean", "std", "size", "resize", "fit", "channels", "layout")
    return Preprocess.named(preprocess).overridden(**{key: options.pop(key) for key in keys})


def console_of(quiet: bool) -> Console:
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

"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

import fcpts_onnx
from fcpts_onnx import demo as demo_run
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.options import (
    FILE,
    comparing_options,
    label_options,
    learning_options,
    output_options,
    preprocess_options,
    report_option,
    run_options,
    selection_options,
    threads_option,
)
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import recipe_names, recipe_text
from fcpts_onnx.report.progress import image_reporter, progress_reporter
from fcpts_onnx.report.run import page, read_run
from fcpts_onnx.report.terminal import (
    show_comparison,
    show_difference,
    show_evaluation,
    show_inspection,
    show_pruning,
    show_validation,
)
from fcpts_onnx.team import is_first
from fcpts_onnx.texts import to_json
from fcpts_onnx.write import check_text, write_text

__all__ = ["main"]

Command = TypeVar("Command", bound=Callable[..., Any])

_INTERRUPTED = 130
_COMMAND = "fcpts_onnx.command"  # the whole line, in what click keeps of an invocation
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    """Shows what a user can put right without a traceback, and tells Ctrl-C by its exit code."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        line = f"{info_name} {shlex.join(args)}"
        context = super().make_context(info_name, args, parent, **extra)
        context.meta.setdefault(_COMMAND, line)
        return context

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FcptsError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted; nothing was written.", err=True)
            ctx.exit(_INTERRUPTED)


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
      fcpts-onnx compare model.onnx --calib images/ --data labelled/ --out results/
    """


@main.command(short_help="Write a sparse copy of a model.")
@click.argument("model", type=FILE)
@click.argument("output", type=FILE)
@click.option("--target", type=float, required=True, help="Share of zeros, between 0 and 1.")
@click.option(
    "--calib",
    required=True,
    type=FILE,
    help="Folder of images or .npy, an .npz keyed by input name, or one .npy.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="How many to learn from at most, drawn at random.",
)
@preprocess_options
@selection_options
@learning_options
@run_options
@click.option("--overwrite", is_flag=True, help="Allow OUTPUT to be MODEL itself.")
@click.option("--stamp", is_flag=True, help="Say in OUTPUT's metadata how it was made.")
@report_option
@output_options
@click.pass_context
def prune(
    context: click.Context,
    /,
    model: Path,
    output: Path,
    calib: Path,
    preprocess: str,
    report_file: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Write MODEL to OUTPUT with exactly the target's share of zero weights.

    \b
    Examples:
      fcpts-onnx prune in.onnx out.onnx --target 0.7 --calib images/
      fcpts-onnx prune in.onnx out.onnx --target 0.9 --calib images/ --preprocess tf
      fcpts-onnx prune in.onnx out.onnx --target 0.5 --calib inputs.npz --keep-dense first,last
      fcpts-onnx prune in.onnx out.onnx --target 0.7 --calib images/ --json run.json
    """
    named = {"OUTPUT": output, "--json": json_file, "--report": report_file}
    _check_apart({name: file for name, file in named.items() if file is not None})
    settings = _settings(preprocess, options)
    console = _console(quiet)
    with progress_reporter(console) as report:
        result = fcpts_onnx.prune(
            model,
            output,
            calib=calib,
            preprocess=settings,
            say=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            report=report,
            **options,
        )
    result = replace(result, command=context.meta[_COMMAND])
    show_pruning(console, result)
    _write_json(json_file, result)
    if report_file is not None and is_first():
        write_text(report_file, page(result))


@main.command(short_help="List what can be pruned.")
@click.argument("model", type=FILE)
@selection_options
@click.option("--sizes", is_flag=True, help="Say what the weights take, stored in several ways.")
@output_options
def inspect(model: Path, json_file: Path | None, quiet: bool, **options: Any) -> None:
    """List every weight of MODEL that can be pruned, and why another cannot.

    \b
    Example:
      fcpts-onnx inspect in.onnx --exclude '*fc*'
    """
    found = fcpts_onnx.inspect(model, **options)
    show_inspection(_console(quiet), found)
    _write_json(json_file, found)


@main.command(short_help="Hold a sparse model against the dense one.")
@click.argument("dense", type=FILE)
@click.argument("sparse", type=FILE)
@click.option("--calib", required=True, type=FILE, help="As for prune.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="How many to compare on at most, drawn at random.",
)
@preprocess_options
@run_options
@output_options
def validate(
    dense: Path,
    sparse: Path,
    calib: Path,
    preprocess: str,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Hold SPARSE against DENSE: zeros, what changed, and how far the outputs are apart.

    \b
    Example:
      fcpts-onnx validate in.onnx out.onnx --calib images/
    """
    settings = _settings(preprocess, options)
    found = fcpts_onnx.validate(dense, sparse, calib=calib, preprocess=settings, **options)
    show_validation(_console(quiet), found)
    _write_json(json_file, found)


@main.command(short_help="Show what differs between two files.")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@output_options
def diff(first: Path, second: Path, json_file: Path | None, quiet: bool) -> None:
    """Show what differs between two ONNX files: values of tensors, and parts of the rest.

    \b
    Example:
      fcpts-onnx diff in.onnx out.onnx
    """
    found = fcpts_onnx.diff(first, second)
    show_difference(_console(quiet), found)
    _write_json(json_file, found)


@main.command(name="eval", short_help="Measure accuracy on labelled images.")
@click.argument("model", type=FILE)
@click.option(
    "--data",
    required=True,
    type=FILE,
    help="Folder with one folder a class, in the order of their names; a detector's images.",
)
@label_options
@preprocess_options
@threads_option
@output_options
def evaluate(
    model: Path, preprocess: str, json_file: Path | None, quiet: bool, **options: Any
) -> None:
    """Measure the accuracy of MODEL on labelled images: top-1 and top-5, or mAP of a detector.

    \b
    Examples:
      fcpts-onnx eval out.onnx --data labelled/
      fcpts-onnx eval ssd.onnx --data JPEGImages/ --boxes Annotations/ --detector ssd.toml
    """
    settings = _settings(preprocess, options)
    console = _console(quiet)
    with image_reporter(console) as report:
        found = fcpts_onnx.evaluate(model, preprocess=settings, report=report, **options)
    show_evaluation(console, found)
    _write_json(json_file, found)


@main.command(short_help="Hold methods side by side.")
@click.argument("model", type=FILE)
@comparing_options
@preprocess_options
@threads_option
@output_options
def compare(
    model: Path, preprocess: str, seeds: int, json_file: Path | None, quiet: bool, **options: Any
) -> None:
    """Prune MODEL by several methods to several targets and show what is left of its accuracy.

    \b
    Example:
      fcpts-onnx compare in.onnx --calib images/ --data labelled/ --out results/
    """
    out: Path = options["out"]
    if json_file is not None and json_file.resolve().parent == out.resolve():
        raise click.UsageError("--json names a file in --out, which has results.json already.")
    console = _console(quiet)
    settings = _settings(preprocess, options)
    try:
        found = fcpts_onnx.compare(
            model,
            preprocess=settings,
            seeds=range(seeds),
            say=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            **options,
        )
    except KeyboardInterrupt:
        click.echo(f"Interrupted; the runs that ended are in {out}.", err=True)
        click.get_current_context().exit(_INTERRUPTED)
    show_comparison(console, found)
    _write_json(json_file, found)


@main.command(short_help="Make a page of a run.")
@click.argument("run", type=FILE)
@click.argument("output", type=FILE, required=False)
def report(run: Path, output: Path | None) -> None:
    """Make a page, OUTPUT, of what prune --json wrote to RUN; beside it if OUTPUT is left out.

    \b
    Example:
      fcpts-onnx report run.json run.html
    """
    target = output or run.with_suffix(".html")
    _check_apart({"RUN": run, "OUTPUT": target})
    check_text(target, "HTML")
    write_text(target, page(read_run(run)))


@main.command(short_help="Prune a small network that comes along.")
@click.option(
    "--target", type=float, default=0.9, show_default=True, help="Share of zeros, 0 to 1."
)
@run_options
@output_options
def demo(json_file: Path | None, quiet: bool, **options: Any) -> None:
    """Prune a small network for handwritten digits and compare it with the dense one.

    \b
    Example:
      fcpts-onnx demo
    """
    console = _console(quiet)
    with progress_reporter(console) as report:
        found = demo_run.run(report=report, **options)
    show_pruning(console, found.pruning)
    show_evaluation(console, found.dense, "dense")
    show_evaluation(console, found.sparse, "sparse")
    _write_json(json_file, found)


@main.group(short_help="Show how the recipes learn.")
def recipe() -> None:
    """The recipes that come along, to be read or copied."""


@recipe.command(short_help="Print a recipe as TOML.")
@click.argument("name", type=click.Choice(recipe_names()))
def show(name: str) -> None:
    """Print the recipe NAME as TOML, to be changed and given to prune.

    \b
    Example:
      fcpts-onnx recipe show default > mine.toml
    """
    click.echo(recipe_text(name), nl=False)


def _settings(preprocess: str, options: dict[str, Any]) -> Preprocess:
    """The preprocessing of the command line; its options are taken out of `options`."""
    keys = ("mean", "std", "size", "resize", "fit", "channels", "layout")
    return Preprocess.named(preprocess).overridden(**{key: options.pop(key) for key in keys})


def _console(quiet: bool) -> Console:
    return Console(quiet=quiet or not is_first(), file=sys.stdout)


def _check_apart(files: Mapping[str, Path]) -> None:
    """See that each name stands for a file of its own."""
    seen: dict[Path, str] = {}
    for name, file in files.items():
        if (other := seen.setdefault(file.resolve(), name)) != name:
            raise click.UsageError(f"{name} names {other} itself.")


def _write_json(file: Path | None, result: Any) -> None:
    if file is not None and is_first():
        write_text(file, to_json(result))

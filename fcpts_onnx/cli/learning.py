"""Commands that learn, and how they do: prune, demo, recipe."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import fcpts_onnx
from fcpts_onnx import demo as demo_run
from fcpts_onnx.cli.group import (
    COMMAND,
    check_apart,
    console_of,
    main,
    settings_of,
    write_json,
)
from fcpts_onnx.cli.options import (
    FILE,
    calib_option,
    checkpoint_options,
    hardware_option,
    label_options,
    learning_options,
    output_options,
    preprocess_options,
    report_option,
    run_options,
    samples_option,
    selection_options,
    storage_option,
)
from fcpts_onnx.cli.values import new_file
from fcpts_onnx.errors import FcptsError, Interrupted
from fcpts_onnx.files import write_text
from fcpts_onnx.int8 import check_quantizable
from fcpts_onnx.model import load
from fcpts_onnx.recipe import recipe_names, recipe_text
from fcpts_onnx.report.progress import count_reporter, progress_reporter
from fcpts_onnx.report.run import page
from fcpts_onnx.report.terminal import (
    show_evaluation,
    show_line,
    show_pruning,
    show_quantization,
    show_rehearsal,
)
from fcpts_onnx.results import Evaluation
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.team import is_first
from fcpts_onnx.write import check_target

__all__: list[str] = []

_RANGE_SAMPLES = 500
_LABELLING = ("labels", "label_offset", "boxes", "detector")


@main.command(short_help="Write a sparse copy of a model.")
@click.argument("model", type=FILE)
@click.argument("output", type=FILE)
@click.option(
    "--target", type=float, help="Share of zeros, between 0 and 1; 2:4 and 4:8 say it themselves."
)
@calib_option
@samples_option(10_000, "How many to learn from at most, drawn at random.")
@preprocess_options
@selection_options
@hardware_option
@learning_options
@run_options
@click.option(
    "--overwrite",
    is_flag=True,
    help="Allow OUTPUT to be MODEL itself, or another dense model.",
)
@click.option(
    "--then-quantize",
    "quantized",
    type=FILE,
    callback=new_file,
    metavar="FILE.onnx",
    help="Write the sparse model in 8 bits too, as quantize does.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only say how long it would take and how much memory."
)
@checkpoint_options
@storage_option
@click.option("--stamp", is_flag=True, help="Say in OUTPUT's metadata how it was made.")
@report_option
@click.option("--data", type=FILE, help="Labelled images to measure both models on, as for eval.")
@label_options
@output_options
@click.pass_context
def prune(
    context: click.Context,
    /,
    model: Path,
    output: Path,
    calib: Path,
    data: Path | None,
    pattern: str,
    preprocess: str,
    dry_run: bool,
    quantized: Path | None,
    report_file: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Write MODEL to OUTPUT with exactly the target's share of zero weights.

    A sparse model that is there already is replaced.

    \b
    Examples:
      fcpts-onnx prune in.onnx out.onnx --target 0.7 --calib images/
      fcpts-onnx prune in.onnx out.onnx --target 0.9 --calib images/ --preprocess tf
      fcpts-onnx prune in.onnx out.onnx --target 0.5 --calib inputs.npz --keep-dense first,last
      fcpts-onnx prune in.onnx out.onnx --target 0.7 --calib images/ --json run.json
      fcpts-onnx prune in.onnx out.onnx --pattern 2:4 --calib images/
    """
    in_place = model.resolve() == output.resolve()
    others = {"--json": json_file, "--report": report_file, "--then-quantize": quantized}
    check_apart({"MODEL": None if in_place else model, "OUTPUT": output, **others})
    rule = options["allocate"]
    rates = Path(rule) if rule.endswith(".json") else None
    check_apart({"--calib": calib, "--allocate": rates, **others})
    if options["target"] is None and not PATTERNS[pattern].is_fixed:
        raise click.UsageError("Missing option '--target'.")
    if data is None and any(options[name] for name in _LABELLING):
        raise click.UsageError("--labels, --label-offset, --boxes and --detector are for --data.")
    if quantized is not None:
        check_quantizable(load(model), quantized)
    settings = settings_of(preprocess, options)
    console = console_of(quiet)
    measured = {name: options.pop(name) for name in _LABELLING}
    measured |= {"data": data, "preprocess": settings, "threads": options["threads"]}
    options |= {
        "calib": calib,
        "pattern": pattern,
        "preprocess": settings,
        "say": partial(show_line, console),
    }
    if dry_run:
        unused = {"--report": report_file, "--then-quantize": quantized, "--data": data}
        if named := [name for name, value in unused.items() if value is not None]:
            raise click.UsageError(f"--dry-run writes and measures nothing: leave out {named[0]}.")
        check_target(output, model, overwrite=bool(options.pop("overwrite")))
        expected = fcpts_onnx.rehearse(model, **options)
        show_rehearsal(console, expected)
        write_json(json_file, expected)
        return
    accuracy: list[Evaluation] = []

    def measure(which: Path) -> None:
        accuracy.extend(_accuracy(console, which, measured))

    with progress_reporter(console) as report:
        # Before it may be replaced, and before labels that do not fit have cost a run.
        dense = partial(measure, model)
        result = fcpts_onnx.prune(model, output, report=report, ready=dense, **options)
    with _known_as_written(output):
        measure(output)
    result = replace(result, command=context.meta[COMMAND], accuracy=tuple(accuracy))
    show_pruning(console, result)
    write_json(json_file, result)
    if report_file is not None and is_first():
        write_text(report_file, page(result))
        show_line(console, f"Written: {report_file}")
    if quantized is not None and is_first():
        given = {"calib": calib, "preprocess": settings, "against": None if in_place else model}
        given |= {key: options[key] for key in ("seed", "threads")}
        given["samples"] = min(options["samples"], _RANGE_SAMPLES)
        _quantize(console, output, quantized, given)


@main.command(short_help="Write a model in 8 bits.")
@click.argument("model", type=FILE)
@click.argument("output", type=FILE)
@calib_option
@samples_option(_RANGE_SAMPLES, "How many to take ranges from at most, drawn at random.")
@preprocess_options
@run_options
@output_options
def quantize(
    model: Path,
    output: Path,
    calib: Path,
    preprocess: str,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Write MODEL to OUTPUT in 8 bits by onnxruntime's static quantizer; zeros stay zeros.

    \b
    Example:
      fcpts-onnx quantize out.onnx out8.onnx --calib images/
    """
    check_apart({"MODEL": model, "OUTPUT": output, "--calib": calib, "--json": json_file})
    settings = settings_of(preprocess, options)
    found = fcpts_onnx.quantize(model, output, calib=calib, preprocess=settings, **options)
    show_quantization(console_of(quiet), found)
    write_json(json_file, found)


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
    console = console_of(quiet)
    with progress_reporter(console) as report:
        found = demo_run.run(report=report, **options)
    show_pruning(console, found.pruning)
    show_evaluation(console, found.dense, "dense")
    show_evaluation(console, found.sparse, "sparse")
    show_line(console, "The demo keeps no files. Your own model: fcpts-onnx prune --help")
    write_json(json_file, found)


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


def _accuracy(console: Console, model: Path, options: dict[str, Any]) -> tuple[Evaluation, ...]:
    """How good a model is on labelled images, if there are any."""
    if options["data"] is None or not is_first():
        return ()
    with count_reporter(console, "Images") as report:
        return (fcpts_onnx.evaluate(model, report=report, **options),)


def _quantize(console: Console, sparse: Path, target: Path, options: dict[str, Any]) -> None:
    """What --then-quantize adds to a run that is over."""
    with _known_as_written(sparse):
        found = fcpts_onnx.quantize(sparse, target, **options)
    show_quantization(console, found)


@contextmanager
def _known_as_written(sparse: Path) -> Iterator[None]:
    """Whatever ends what comes after a run says that its file is there."""
    left = f"the sparse model itself is in {sparse}"
    try:
        yield
    except FcptsError as error:
        raise FcptsError(f"{error} T{left[1:]}.") from error
    except KeyboardInterrupt as stop:
        number = stop.signal if isinstance(stop, Interrupted) else signal.SIGINT
        raise Interrupted(number, left) from stop

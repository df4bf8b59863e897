"""Commands that measure: eval, compare."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

import fcpts_onnx
from fcpts_onnx.cli.group import (
    console_of,
    main,
    settings_of,
    stop_with,
    write_json,
)
from fcpts_onnx.cli.options import (
    FILE,
    comparing_options,
    engines_option,
    label_options,
    output_options,
    preprocess_options,
    selection_options,
    size_option,
    threads_option,
)
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.report.progress import bar_reporter, count_reporter
from fcpts_onnx.report.terminal import (
    show_comparison,
    show_evaluation,
    show_latency,
    show_line,
)

__all__: list[str] = []


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
    settings = settings_of(preprocess, options)
    console = console_of(quiet)
    with count_reporter(console, "Images") as report:
        found = fcpts_onnx.evaluate(model, preprocess=settings, report=report, **options)
    show_evaluation(console, found)
    write_json(json_file, found)


@main.command(short_help="Hold methods side by side.")
@click.argument("model", type=FILE)
@comparing_options
@selection_options
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
    console = console_of(quiet)
    settings = settings_of(preprocess, options)
    try:
        with bar_reporter(console) as report:
            found = fcpts_onnx.compare(
                model,
                preprocess=settings,
                seeds=range(seeds),
                say=partial(show_line, console),
                report=report,
                **options,
            )
    except KeyboardInterrupt as stop:
        stop_with(click.get_current_context(), stop, f"the same command goes on with {out}")
    show_comparison(console, found)
    write_json(json_file, found)
    if not any(trial.output for trial in found.trials):
        raise click.ClickException("No method could take the model; the rows say why.")
    show_line(console, f"The models, and results.html with this as a page, are in {out}")


@main.command(short_help="Measure what zeros save on an engine.")
@click.argument("dense", type=FILE)
@click.argument("sparse", type=FILE)
@engines_option
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="How often each model is timed on each engine, in bursts of 5.",
)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Of each engine."
)
@size_option
@click.option("--layers", is_flag=True, help="Show each layer's time, where the engine tells.")
@click.option("--strict", is_flag=True, help="Fail where an engine's outputs are not right.")
@output_options
def bench(
    dense: Path, sparse: Path, layers: bool, strict: bool, json_file: Path | None, quiet: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Time DENSE and SPARSE side by side, and hold what engines compute against onnxruntime.

    \b
    Examples:
      fcpts-onnx bench in.onnx out.onnx
      fcpts-onnx bench in.onnx out.onnx --runtime ort,mnn --layers
    """
    console = console_of(quiet)
    with count_reporter(console, "Turns") as report:
        found = fcpts_onnx.bench(dense, sparse, report=report, **options)
    show_latency(console, found, layers)
    write_json(json_file, found)
    if strict and (wrong := [t for t in found.timings if not t.is_verified]):
        names = ", ".join(f"{timing.engine} ({timing.model})" for timing in wrong)
        raise FcptsError(f"--strict: {names} are not known to give onnxruntime's outputs.")

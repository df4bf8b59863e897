"""Commands that look at files: inspect, validate, diff, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import fcpts_onnx
from fcpts_onnx.cli.group import (
    check_apart,
    console_of,
    main,
    settings_of,
    write_json,
)
from fcpts_onnx.cli.options import (
    FILE,
    calib_option,
    hardware_option,
    output_options,
    preprocess_options,
    run_options,
    samples_option,
    selection_options,
    size_option,
)
from fcpts_onnx.files import check_text, write_text
from fcpts_onnx.report.run import page, read_run
from fcpts_onnx.report.terminal import (
    show_difference,
    show_inspection,
    show_line,
    show_validation,
)

__all__: list[str] = []


@main.command(short_help="List what can be pruned.")
@click.argument("model", type=FILE)
@selection_options
@hardware_option
@size_option
@click.option("--tree", is_flag=True, help="Show weights as a tree by the paths in their names.")
@click.option("--sizes", is_flag=True, help="Say what the weights take, stored in several ways.")
@output_options
def inspect(model: Path, tree: bool, json_file: Path | None, quiet: bool, **options: Any) -> None:
    """List every weight of MODEL that can be pruned, and why another cannot.

    \b
    Example:
      fcpts-onnx inspect in.onnx --exclude '*fc*'
    """
    found = fcpts_onnx.inspect(model, **options)
    show_inspection(console_of(quiet), found, tree)
    write_json(json_file, found)


@main.command(short_help="Hold a sparse model against the dense one.")
@click.argument("dense", type=FILE)
@click.argument("sparse", type=FILE)
@calib_option
@samples_option(1000, "How many to compare on at most, drawn at random.")
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
    settings = settings_of(preprocess, options)
    found = fcpts_onnx.validate(dense, sparse, calib=calib, preprocess=settings, **options)
    show_validation(console_of(quiet), found)
    write_json(json_file, found)


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
    show_difference(console_of(quiet), found)
    write_json(json_file, found)


@main.command(short_help="Make a page of a run.")
@click.argument("run", type=FILE)
@click.argument("output", type=FILE, required=False)
def report(run: Path, output: Path | None) -> None:
    """Make a page, OUTPUT, of what prune --json wrote to RUN; beside it if OUTPUT is left out.

    \b
    Example:
      fcpts-onnx report run.json run.html
    """
    found = read_run(run)
    target = output or run.with_suffix(".html")
    check_apart({"RUN": run, "OUTPUT": target})
    check_text(target, "HTML")
    write_text(target, page(found))
    show_line(console_of(quiet=False), f"Written: {target}")

"""The options of the commands, by what they say, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fcpts_onnx.aim import OBJECTIVES
from fcpts_onnx.cli.values import (
    read_bytes,
    read_engines,
    read_losses,
    read_methods,
    read_numbers,
    read_places,
    read_rule,
    read_seconds,
    read_size,
    read_targets,
    read_text_target,
    read_views,
)
from fcpts_onnx.hardware import DEVICES
from fcpts_onnx.methods import ALLOCATIONS, LEARNED, METHODS, NETWISE, RECONSTRUCTIONS
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.recipe import recipe_names
from fcpts_onnx.sparsity.pattern import PATTERNS

__all__ = [
    "FILE",
    "calib_option",
    "checkpoint_options",
    "comparing_options",
    "engines_option",
    "hardware_option",
    "label_options",
    "learning_options",
    "output_options",
    "preprocess_options",
    "report_option",
    "run_options",
    "samples_option",
    "selection_options",
    "size_option",
    "storage_option",
    "threads_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in this order."""

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def samples_option(default: int, what: str) -> Callable[[Command], Command]:
    """How many samples to take at most."""
    kind = click.IntRange(1)
    return click.option("--samples", type=kind, default=default, show_default=True, help=what)


FILE = click.Path(path_type=Path)
calib_option = click.option(
    "--calib",
    required=True,
    type=FILE,
    help="Folder of images or .npy, an .npz keyed by input name, or one .npy.",
)
size_option = click.option(
    "--size",
    callback=read_size,
    metavar="HxW|N",
    help="Image size in pixels, where the graph leaves it open.",
)
preprocess_options = _options(
    click.option(
        "--preprocess",
        default="imagenet",
        show_default=True,
        metavar="NAME|FILE.toml",
        help=f"How pixels become inputs: {', '.join(PRESETS)}, or a TOML file.",
    ),
    click.option(
        "--mean",
        callback=read_numbers,
        metavar="A[,B,C]",
        help="Mean, instead of the preset's: of values from 0 to 1 for imagenet and unit, to 2 "
        "for tf, to 255 for raw.",
    ),
    click.option(
        "--std",
        callback=read_numbers,
        metavar="A[,B,C]",
        help="Deviation, instead of the preset's, of the same values.",
    ),
    size_option,
    click.option(
        "--resize",
        type=click.IntRange(1),
        metavar="N",
        help="Short side in pixels before the centre crop; by default the least that covers it.",
    ),
    click.option(
        "--fit",
        type=click.Choice(["crop", "stretch"]),
        help="Cut images from the centre (by default), or bring them to the size as a whole, as "
        "for detectors.",
    ),
    click.option(
        "--channels",
        type=click.Choice(["rgb", "bgr"]),
        help="Order of the model's channels, by default rgb.",
    ),
    click.option(
        "--layout",
        type=click.Choice(["auto", "nchw", "nhwc"]),
        help="Order of the input's axes; auto, the default: where it has 1 or 3 channels.",
    ),
)
selection_options = _options(
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Prune only weights, or weights of nodes, of this name; repeatable.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Leave out weights, or weights of nodes, of this name; repeatable.",
    ),
    click.option(
        "--keep-dense",
        default="",
        metavar="first,last",
        callback=read_places,
        help="Leave out the first or last weight.",
    ),
)
hardware_option = click.option(
    "--hardware",
    type=click.Choice(DEVICES),
    help="A chip, on which zeros save time up to some share in each layer: prune gives a layer "
    "no more while others have room. mnn: layers that MNN runs faster from some share of zeros "
    "on; prune gives them that many.",
)
engines_option = click.option(
    "--runtime",
    "engines",
    default="ort",
    show_default=True,
    callback=read_engines,
    metavar="ort,mnn",
    help="What to run them on: onnxruntime, MNN without and with kernels that skip zeros.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(0, 1024),  # thousands of them do nothing but wait for each other
    default=0,
    show_default=True,
    help="Processor threads; 0 takes as many as are there.",
)
run_options = _options(
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Of all random choices; the same seed gives the same result on a machine.",
    ),
    threads_option,
)
output_options = _options(
    click.option(
        "--json",
        "json_file",
        type=FILE,
        callback=read_text_target,
        metavar="FILE",
        help="Write the result as JSON too.",
    ),
    click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
)
report_option = click.option(
    "--report",
    "report_file",
    type=FILE,
    callback=read_text_target,
    metavar="FILE.html",
    help="Write a page with plots of what was done too.",
)
pattern_option = click.option(
    "--pattern",
    type=click.Choice(list(PATTERNS)),
    default="unstructured",
    show_default=True,
    help="Where zeros may lie: N of M input channels kept, or blocks of 4 output channels.",
)
objective_option = click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="sparsity",
    show_default=True,
    help="What the target is a share of: zeros; or of what they save: layers' time on --hardware, "
    "or the weights' size in 8 bits with a bitmask.",
)
checkpoint_options = _options(
    click.option(
        "--resume", is_flag=True, help="Go on from where an interrupted run with these options was."
    ),
    click.option("--keep-checkpoint", is_flag=True, help="Leave OUTPUT.fcpts when all is done."),
    click.option(
        "--checkpoint-every",
        callback=read_seconds,
        default="60s",
        show_default=True,
        metavar="TIME",
        help="How often to keep, in OUTPUT.fcpts, what --resume goes on from.",
    ),
)
storage_option = click.option(
    "--storage",
    type=click.Choice(["dense", "sparse"]),
    default="dense",
    show_default=True,
    help="sparse: leave zeros out of the file where that is smaller, as sparse initializers.",
)
learning_options = _options(
    objective_option,
    pattern_option,
    click.option(
        "--recipe",
        default="default",
        show_default=True,
        metavar="NAME|FILE.toml",
        help=f"How to learn: {', '.join(recipe_names())}, or a TOML file.",
    ),
    click.option(
        "--allocate",
        default=LEARNED,
        show_default=True,
        callback=read_rule,
        metavar="RULE|FILE.json",
        help=f"How layers share zeros: {LEARNED}, {', '.join(ALLOCATIONS)}, or rates by weight.",
    ),
    click.option(
        "--reconstruct",
        type=click.Choice(RECONSTRUCTIONS),
        default=NETWISE,
        show_default=True,
        help="How to win accuracy back; all but netwise and none take layer after layer. All but "
        "netwise need another --allocate than learned.",
    ),
    click.option(
        "--augment",
        callback=read_views,
        metavar="none|flip,crop,mix",
        help="Random views of images to learn from, instead of the recipe's.",
    ),
    click.option(
        "--time-budget",
        callback=read_seconds,
        metavar="TIME",
        help="Learn as long as fits into 90s, 5m or 1.5h in all, instead of the recipe's epochs.",
    ),
    click.option(
        "--memory",
        callback=read_bytes,
        metavar="SIZE",
        help="What learning may take at most, such as 800M or 4G: batches are split to keep to it. "
        "By default what there is.",
    ),
    click.option(
        "--loss",
        "losses",
        multiple=True,
        callback=read_losses,
        metavar="OUTPUT=kl|bce|mse",
        help="How an output is met, instead of what is chosen for it; repeatable.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to learn; auto takes CUDA where it is.",
    ),
    click.option(
        "--engine",
        type=click.Choice(["torch", "ort"]),
        default="torch",
        show_default=True,
        help="What computes gradients; ort is onnxruntime-training, in an environment of its own.",
    ),
)
label_options = _options(
    click.option(
        "--labels",
        type=FILE,
        help="Class names in order, one a line for each score; or, for classifiers, a .csv of "
        "file,label: a path in --data, and the number of its class from 0 on.",
    ),
    click.option(
        "--label-offset",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Place of the first class among the scores; 1 where 1000 classes have 1001.",
    ),
    click.option(
        "--boxes",
        type=FILE,
        metavar="FOLDER",
        help="Of a detector: an .xml (PASCAL VOC) or .txt (YOLO) for each image.",
    ),
    click.option(
        "--detector", type=FILE, metavar="FILE.toml", help="What the outputs of a detector mean."
    ),
)
comparing_options = _options(
    click.option(
        "--methods",
        default="fcpts,pot-l2norm,pot-erk",
        show_default=True,
        callback=read_methods,
        metavar="A,B,...",
        help=f"Which: {', '.join(METHODS)}.",
    ),
    click.option(
        "--targets",
        default="0.5,0.7,0.9",
        show_default=True,
        callback=read_targets,
        metavar="A,B,...",
        help="Shares of zeros, between 0 and 1.",
    ),
    calib_option,
    click.option("--data", type=FILE, help="Labelled images, as for eval."),
    label_options,
    click.option(
        "--out",
        required=True,
        type=FILE,
        metavar="FOLDER",
        help="For the sparse models, results.json, .md and .html; runs that are there are kept.",
    ),
    samples_option(10_000, "How many to learn from at most, drawn at random."),
    click.option(
        "--recipe",
        metavar="NAME|FILE.toml",
        help="Instead of the own one of methods that learn in the same way.",
    ),
    click.option(
        "--seeds",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="How many runs of each.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Runs at once, each in a process with its part of the processor.",
    ),
)

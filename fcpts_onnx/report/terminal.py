"""SHOW: results as tables and lines on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fcpts_onnx.report.tree import weight_tree
from fcpts_onnx.results import (
    Comparison,
    Difference,
    Estimate,
    Evaluation,
    Inspection,
    Latency,
    Output,
    PruneResult,
    Quantization,
    Rehearsal,
    Timing,
    Validation,
)
from fcpts_onnx.texts import (
    dense_time,
    in_aim,
    in_bytes,
    in_share,
    in_words,
    one_line,
    printable,
)

__all__ = [
    "show_comparison",
    "show_difference",
    "show_evaluation",
    "show_inspection",
    "show_latency",
    "show_line",
    "show_pruning",
    "show_quantization",
    "show_rehearsal",
    "show_validation",
]


_WIDEST = 1000  # columns
_SHOWN = 0.01  # of all time, that a layer takes at least to be listed


def show_line(console: Console, text: str, style: str | None = None) -> None:
    """A line, whatever is in it shown as it is: never as markup, nor as what steers a terminal."""
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


def show_inspection(console: Console, found: Inspection, tree: bool = False) -> None:
    """Every candidate, and why an excluded one is excluded, as a table or as a tree."""
    show_line(console, f"{found.model}: opset {found.opset}; input {'; '.join(found.inputs)}")
    if tree:
        word = "useful" if found.densities else "faster from"
        shares = {weight.name: _on_device(found, weight.name) for weight in found.weights}
        notes = {name: f"{word} {share}" for name, share in shares.items() if share}
        console.print(weight_tree(found.model, found.weights, notes), soft_wrap=True)
    else:
        _whole(console, _candidates(found))
    for line in _notes(found):
        show_line(console, line)
    if found.sizes:
        table = _table("stored as", "float32", "float16", "int8", right=(1, 2, 3))
        for size in found.sizes:
            _row(table, size.name, *map(in_bytes, (size.float32, size.float16, size.int8)))
        _whole(console, table)
        show_line(console, "Of the weights that can be pruned, each with as many zeros as it has")


def _candidates(found: Inspection) -> Table:
    """A row a weight."""
    total = sum(weight.count for weight in found.weights)
    device = ("useful",) if found.densities else ("faster from",) if found.gains_from else ()
    titles = ("weight", "op", "shape", "count", "zeros", "share", *device, "pruned")
    table = _table(*titles, right=range(3, len(titles) - 1))
    for weight in found.weights:
        _row(
            table,
            weight.name + (f" (shared by {len(weight.nodes)})" if len(weight.nodes) > 1 else ""),
            weight.op,
            _shape(weight.shape),
            f"{weight.count:,}",
            f"{weight.zeros:,}",
            f"{weight.count / max(1, total):.1%}",
            *([_on_device(found, weight.name)] if device else []),
            "yes" if weight.excluded is None else f"no: {weight.excluded}",
        )
    return table


def _notes(found: Inspection) -> Iterator[str]:
    """What is to be said of all weights together, a line each."""
    pruned = [weight for weight in found.weights if weight.excluded is None]
    present = f" ({found.zeros / found.prunable:.2%})" if found.prunable else ""
    yield (
        f"{len(pruned)} of {len(found.weights)} weights can be pruned: {found.prunable:,} values, "
        f"{found.zeros:,} zero already{present}. {len(found.along)} biases and norm parameters "
        "are trained with the weights."
    )
    if found.others:
        yield f"{found.others:,} values in other constants (LSTM, embeddings, ...) are not pruned"
    for head in found.heads:
        yield f"Learned against {head}"
    if found.densities:
        useful = sum(w.count * (1 - found.densities.get(w.name, 1.0)) for w in pruned)
        yield (
            "Useful: zeros beyond this share of a layer save no time on the chip; "
            f"in all {useful / max(1, found.prunable):.1%}"
        )
    if found.gains_from:
        yield "Faster from: the share of zeros from which on MNN runs it faster"
    if found.estimate is not None:
        yield _estimated(found.estimate)
    elif found.densities:
        yield "No time is estimated: the graph leaves sizes open. Give --size"
    if found.obstacle:
        yield f"It cannot be pruned: {found.obstacle}"


def _on_device(found: Inspection, name: str) -> str:
    """What a layer's zeros come to on the device that was asked for."""
    if name in found.densities:
        return f"{1 - found.densities[name]:.1%}"
    if name in found.gains_from:
        share = found.gains_from[name]
        return "never" if share is None else f"{share:.0%}"
    return ""


def _estimated(found: Estimate) -> str:
    dense = dense_time(found.known, found.layers)
    return (
        f"{found.chip}, an estimate: at best {found.time:.2f} of {dense}; "
        f"{in_bytes(found.weight_bytes)} of 8-bit weights with a bitmask where that is smaller, "
        f"{in_bytes(found.dense_bytes)} dense"
    )


def show_pruning(console: Console, result: PruneResult) -> None:
    """What was pruned, layer by layer and in all."""
    _zeros(console, result.validation)
    asked = in_aim(result.objective, result.goal, result.target)
    show_line(
        console,
        f"{result.output}: {result.zeros:,} of {result.count:,} weights are zero "
        f"({result.zeros / result.count:.4%}), asked for {asked}",
    )
    if result.storage == "sparse":
        before, after = (in_bytes(count) for count in result.weight_values.file_bytes)
        stored = f"{after} instead of {before}" if after != before else "nowhere"
        show_line(console, f"Stored sparse where that is smaller: {stored}")
    _outputs(console, result.validation)
    for found, title in zip(result.accuracy, ("dense", "sparse"), strict=False):
        show_evaluation(console, found, title)
    if result.estimate is not None:
        show_line(console, _estimated(result.estimate))
    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.seconds.items())
    show_line(console, f"Seconds: {times}; in all {sum(result.seconds.values()):.1f}")


def show_rehearsal(console: Console, found: Rehearsal) -> None:
    """What a run would come to."""
    zeros = "nobody knows how many" if found.zeros is None else f"{found.zeros:,}"
    peak = found.peak_bytes
    memory = "" if peak is None else f"; these few steps took {in_bytes(peak)} of memory"
    show_line(
        console,
        f"It would make {zeros} of {found.count:,} weights zero ({found.target:.4%} asked for) in "
        f"{found.steps:,} steps of {1000 * found.pace:.0f} ms: {found.seconds / 60:.1f} minutes in "
        f"all{memory}. Nothing was written.",
    )


def show_quantization(console: Console, found: Quantization) -> None:
    """What became of a model in 8 bits."""
    before, after = (in_bytes(count) for count in found.file_bytes)
    share = found.zeros / max(1, found.count)
    show_line(
        console,
        f"{found.output}: 8 bits, {after} instead of {before}; {found.zeros:,} of {found.count:,} "
        f"weights are zero ({share:.2%}), in float {found.zeros_before:,} were",
    )
    _agreements(console, found.outputs, found.samples, found.against)


def show_validation(console: Console, found: Validation) -> None:
    """What was found in a sparse file, held against its dense origin."""
    _zeros(console, found)
    if found.count:
        show_line(
            console,
            f"{found.model}: {found.zeros:,} of {found.count:,} weights are zero "
            f"({found.zeros / found.count:.4%})",
        )
    rest = "nothing else differs" if found.same_graph else "the graphs differ beyond tensor values"
    show_line(console, f"Values differ in {len(found.changed)} tensors; {rest}")
    _outputs(console, found)


def show_difference(console: Console, found: Difference) -> None:
    """What differs between two files, tensor by tensor."""
    table = _table("tensor", "type", "count", "zeros", "changed", "largest", right=(2, 3, 4, 5))
    for tensor in found.tensors:
        _row(
            table,
            tensor.name,
            _both(*tensor.types),
            _both(*(f"{count:,}" for count in tensor.counts)),
            _both(*(f"{count:,}" for count in tensor.zeros)),
            "" if tensor.changed is None else f"{tensor.changed:,}",
            "" if tensor.largest is None else f"{tensor.largest:.3g}",
        )
    if found.tensors:
        _whole(console, table)
    for file, names in ((found.first, found.only_first), (found.second, found.only_second)):
        if names:
            show_line(console, f"Only in {file}: {', '.join(names)}")
    parts = ", ".join(found.parts) or "nothing"
    show_line(
        console,
        f"Values differ in {len(found.tensors)} tensors; beyond those differs: {parts}",
    )


def show_latency(console: Console, found: Latency, layers: bool = False) -> None:
    """Times side by side; what an engine refuses, or computes differently, below."""
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    shapes = ", ".join(f"{name} {_shape(tuple(s))}" for name, s in found.inputs.items())
    show_line(
        console,
        f"{found.runs} runs each, in turns; {threads}; input {shapes}; medians, "
        "and quartiles in brackets",
    )
    table = _table(
        "engine",
        "dense, ms",
        "sparse, ms",
        "speed-up",
        "dense size",
        "sparse size",
        "to load, ms",
        right=range(1, 7),
    )
    by_place = {(timing.engine, timing.model): timing for timing in found.timings}
    for engine in dict.fromkeys(timing.engine for timing in found.timings):
        both = [by_place[engine, model] for model in ("dense", "sparse")]
        gain = found.speed_ups.get(engine)
        _row(
            table,
            engine,
            *(_milliseconds(timing) for timing in both),
            "" if gain is None else f"{gain:.2f}",
            *("" if timing.bytes is None else in_bytes(timing.bytes) for timing in both),
            " / ".join("-" if t.loading is None else f"{t.loading:.3g}" for t in both),
        )
    _whole(console, table)
    for timing in found.timings:
        name = f"{timing.engine}, {timing.model}"
        if timing.error is not None:
            show_line(console, f"{name}: {timing.error}")
        if timing.disagrees:
            show_line(console, f"{name}: differs from onnxruntime by {timing.apart:.2g}", "red")
    if "ort" in found.speed_ups:
        show_line(console, "onnxruntime does not skip zeros: what differs there is chance")
    if layers:
        _layers(console, found)


def _layers(console: Console, found: Latency) -> None:
    for engine in dict.fromkeys(timing.engine for timing in found.timings if timing.layers):
        dense, sparse = (
            next(t.layers for t in found.timings if (t.engine, t.model) == (engine, model))
            for model in ("dense", "sparse")
        )
        least = _SHOWN * sum(dense.values())
        table = _table(f"{engine}, layer", "dense, ms", "sparse, ms", "speed-up", right=(1, 2, 3))
        for name in (name for name in dense if name in sparse and dense[name] >= least):
            gain = dense[name] / sparse[name] if sparse[name] else float("inf")
            _row(table, name, f"{dense[name]:.3f}", f"{sparse[name]:.3f}", f"{gain:.2f}")
        _whole(console, table)


def _milliseconds(timing: Timing) -> str:
    if timing.milliseconds is None or timing.spread is None:
        return ""
    low, high = timing.spread
    return f"{timing.milliseconds:.3g} ({low:.3g} to {high:.3g})"


def show_evaluation(console: Console, found: Evaluation, title: str = "") -> None:
    """Accuracy on labelled images; a title stands for the model's path."""
    for line in found.skipped:
        show_line(console, f"Skipped: {line}")
    if found.by_class:
        table = _table("class", "", right=(1,))
        for name, score in found.by_class.items():
            _row(table, name, f"{score:.2%}")
        _whole(console, table)
    show_line(
        console,
        f"{title or found.model}: {in_words(found.scores)} "
        f"on {found.samples:,} images of {found.classes} classes in {found.data}",
    )


def show_comparison(console: Console, found: Comparison) -> None:
    """Methods side by side, by target; what went wrong below."""
    if found.dense is not None:
        show_evaluation(console, found.dense, "dense")
    names = tuple(found.dense.scores) if found.dense is not None else ()
    titles = ("zeros", "method", "seed", *names, "KL on calib", "same top-1 on calib", "seconds")
    table = _table(*titles, right=(0, *range(2, len(titles))))
    for trial in found.trials:
        shares = [*(trial.scores.get(name) for name in names), trial.agreement]
        *scores, agreement = ("" if share is None else f"{share:.2%}" for share in shares)
        kl = "" if trial.kl is None else f"{trial.kl:.3f}"
        _row(
            table, in_share(trial.target), trial.label, str(trial.seed), *scores, kl, agreement,
            f"{trial.seconds:.0f}",
        )  # fmt: skip
    _whole(console, table)
    for trial in found.trials:
        if trial.note:
            show_line(console, f"{trial.label} at {in_share(trial.target)}: {trial.note}")


def _zeros(console: Console, found: Validation) -> None:
    table = _table("weight", "shape", "count", "zeros", "sparsity", right=(2, 3, 4))
    for weight in found.weights:
        _row(
            table,
            weight.name,
            _shape(weight.shape),
            f"{weight.count:,}",
            f"{weight.zeros:,}",
            f"{weight.rate:.2%}",
        )
    _whole(console, table)


def _outputs(console: Console, found: Validation) -> None:
    _agreements(console, found.outputs, found.samples)
    if found.twin_error is not None:
        show_line(console, f"onnxruntime agrees with the sparse twin within {found.twin_error:.1e}")


def _agreements(
    console: Console, outputs: Sequence[Output], samples: int, against: str = "dense"
) -> None:
    for output in outputs:
        parts = [f"cosine {output.cosine:.4f}"]
        if output.kl is not None and output.agreement is not None:
            parts = [f"KL {output.kl:.4f}", *parts, f"same top-1 {output.agreement:.2%}"]
        show_line(
            console,
            f"Output {output.name} against {against}, {samples:,} samples: {', '.join(parts)}",
        )


def _table(*titles: str, right: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place in right else "left", no_wrap=True)
    return table


def _whole(console: Console, table: Table) -> None:
    """Print a table as wide as it is: names have to be read, copied and searched for."""
    width, wide = console.width, console.options.update(max_width=_WIDEST)
    console.width = max(width, Measurement.get(console, wide, table).maximum)
    console.print(table)
    console.width = width


def _row(table: Table, *cells: str) -> None:
    """Names come from the model: they are shown as they are, never as markup."""
    table.add_row(*(Text(one_line(cell)) for cell in cells))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def _both(first: str, second: str) -> str:
    """A value of two files, once where it is the same."""
    return first if first == second else f"{first} > {second}"

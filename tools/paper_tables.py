"""What was measured for a table or figure of the paper, beside what the paper has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fcpts_onnx import inspect
from fcpts_onnx.results import Comparison, Evaluation, Trial
from tools.paper_networks import Network
from tools.paper_rows import BY_LAYER, DEVICE, MINUTES, PRECISION, Item, matching


def section(item: Item, network: Network, found: Comparison, folder: Path) -> Iterator[str]:
    """What was measured on one network, beside what the paper has."""
    methods = dict.fromkeys(trial.method for trial in found.trials)
    yield _heading(item, network, found.dense, [*methods])
    yield ""
    if item.shows == BY_LAYER:
        yield from _by_layer([trial for trial in found.trials if trial.output], folder)
        return
    if not methods:
        return
    targets = item.targets_on(network.dataset)
    yield f"| | {' | '.join(f'{target} %' for target in targets)} |"
    yield f"|---{'|---' * len(targets)}|"
    for method in methods:
        row = (network.dataset, network.name, method)
        trials = {round(100 * t.target): t for t in found.trials if t.method == method}
        cells = (
            _cell(item, trials.get(target), item.paper.get((row, target))) for target in targets
        )
        yield f"| {method} | {' | '.join(cells)} |"
    yield ""
    if item.shows == MINUTES and (ratio := _ratio(found.trials)) is not None:
        yield f"Layer-wise (pot-l2norm) takes {ratio:.2f} times as long as net-wise (fcpts)."
        yield ""


def _heading(item: Item, network: Network, dense: Evaluation | None, methods: Sequence[str]) -> str:
    """What the dense network has, and what the values in brackets are where there are any."""
    rows = [(network.dataset, network.name, method) for method in ("dense", *methods)]
    paper = item.paper.get((rows[0], 0))
    text = f"{network.name} on {network.dataset}, dense {_accuracy(dense)}"
    text += f" (paper {paper})." if paper else "."
    if any(row in rows for row, _ in item.paper):
        text += " The paper's values in brackets."
        if item.shows == PRECISION:
            # eval_ssd.py of github.com/qfgaohao/pytorch-ssd, whose networks the paper has.
            text += (
                " It does not say by which rule; the code that its networks come from counts as "
                "VOC 2007 does."
            )
    return text


def _ratio(trials: Iterable[Trial]) -> float | None:
    """How many times as long as net-wise learning layer-wise least squares take."""
    seconds = {trial.method: trial.seconds for trial in trials if trial.output}
    if not {"pot-l2norm", "fcpts"} <= seconds.keys():
        return None
    return seconds["pot-l2norm"] / seconds["fcpts"]


def _cell(item: Item, trial: Trial | None, paper: str | None) -> str:
    if trial is None:
        measured = "not run"
    elif trial.note:
        measured = f"{_accuracy(trial)}, {trial.note}" if trial.output else trial.note
    else:
        measured = f"{trial.seconds / 60:.1f}" if item.shows == MINUTES else _accuracy(trial)
    return f"{measured} ({paper})" if paper else measured


def _accuracy(found: Trial | Evaluation | None) -> str:
    if found is None or not found.scores:
        return "not measured"
    return "/".join(f"{100 * score:.2f}" for score in found.scores.values())


def _by_layer(trials: Sequence[Trial], folder: Path) -> Iterator[str]:
    """The share of zeros of each layer, in the order of the graph."""
    rates = {
        trial.method: {w.name: w.zeros / w.count for w in inspect(folder / trial.output).weights}
        for trial in trials if trial.output
    }  # fmt: skip
    yield f"| layer | {' | '.join(rates)} |"
    yield f"|---{'|---:' * len(rates)}|"
    for layer in next(iter(rates.values()), {}):
        yield f"| {layer} | {' | '.join(f'{found[layer]:.1%}' for found in rates.values())} |"
    yield ""


def left_out(
    name: str, item: Item, networks: Sequence[Network], wanted: Sequence[str]
) -> Iterator[str]:
    """The paper's rows that nothing was given for."""
    there = {(network.dataset, network.name) for network in networks}
    rows = [row for row in matching(name, item.rows, wanted) if row[:2] not in there]
    if rows:
        names = dict.fromkeys(f"{network} on {dataset}" for dataset, network, _ in rows)
        reason = "it takes a CV22" if item.shows == DEVICE else "no file or data was given"
        yield f"Left out, since {reason}: {', '.join(names)}."
        yield ""

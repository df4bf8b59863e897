"""SHOW: what every command gives back: plain data, ready for a terminal, JSON or a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fcpts_onnx.weights import Weight

__all__ = [
    "Comparison",
    "Evaluation",
    "Inspection",
    "Output",
    "Parity",
    "Progress",
    "PruneResult",
    "Sparsity",
    "Trial",
    "Validation",
    "in_words",
    "silent",
    "to_json",
]


@dataclass(frozen=True)
class Sparsity:
    """The zeros of one weight tensor, counted in a file."""

    name: str
    shape: tuple[int, ...]
    count: int
    zeros: int

    @property
    def rate(self) -> float:
        """The share of zeros, 0 to 1."""
        return self.zeros / self.count


@dataclass(frozen=True)
class Inspection:
    """What `inspect` shows: every candidate for pruning, and what is learned with them.

    Attributes:
        along: biases and norm parameters that are learned along.
        heads: what is learned against: the outputs, or what gradients reach before them, each
            with its loss; empty where the graph cannot be tried out without calibration data.
        obstacle: why the model cannot be pruned, if so.
        densities: of a chip, by weight, the share of weights below which zeros save no more time.
    """

    model: str
    opset: int
    inputs: tuple[str, ...]
    weights: tuple[Weight, ...]
    along: tuple[str, ...]
    heads: tuple[str, ...] = ()
    obstacle: str | None = None
    densities: dict[str, float] = field(default_factory=dict)

    @property
    def prunable(self) -> int:
        """How many values can be pruned: the base of the target."""
        return sum(weight.count for weight in self.weights if weight.excluded is None)

    @property
    def zeros(self) -> int:
        """How many of those are zero already."""
        return sum(weight.zeros for weight in self.weights if weight.excluded is None)


@dataclass(frozen=True)
class Parity:
    """How far a twin is from onnxruntime on the same samples.

    Attributes:
        error: the worst difference of any output, relative to the largest value of that output.
        per_sample: whether the twin has to run the graph sample by sample, because a batch size
            is written into the graph.
        seconds: what onnxruntime took for the samples.
    """

    samples: int
    error: float
    per_sample: bool
    seconds: float


@dataclass(frozen=True)
class Output:
    """How far one output of the sparse model is from that of the dense one.

    Attributes:
        cosine: mean cosine of the angle between the two, sample by sample.
        kl: mean Kullback-Leibler divergence KL(dense || sparse), in nats; None where the output
            is not one of class scores.
        agreement: share of samples with the same top-1 class; None likewise.
    """

    name: str
    cosine: float
    kl: float | None
    agreement: float | None


@dataclass(frozen=True)
class Validation:
    """What was found in a saved sparse file, held against its dense origin.

    Attributes:
        changed: the tensors whose values differ.
        same_graph: whether nothing but tensor values differs.
        twin_error: worst relative difference between onnxruntime and the twin it came from.
    """

    model: str
    samples: int
    weights: tuple[Sparsity, ...]
    changed: tuple[str, ...]
    same_graph: bool
    outputs: tuple[Output, ...]
    twin_error: float | None = None

    @property
    def count(self) -> int:
        """How many values the listed weights have."""
        return sum(weight.count for weight in self.weights)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(weight.zeros for weight in self.weights)


@dataclass(frozen=True)
class Progress:
    """One report from the learning loop.

    Attributes:
        loss: the reconstruction loss, averaged over the last steps.
        sparsity: the share of zeros the network runs with now.
        seconds: time since learning began.
        rates: the same share by weight.
    """

    step: int
    steps: int
    loss: float
    sparsity: float
    seconds: float
    rates: dict[str, float]

    @property
    def seconds_left(self) -> float:
        """Time left at the pace so far."""
        return self.seconds / max(1, self.step) * (self.steps - self.step)


@dataclass(frozen=True)
class PruneResult:
    """What `prune` did.

    Attributes:
        target: the share of zeros asked for.
        hardware: the chip whose densities were kept to, if any.
        holds_target: whether the method can end with just that share; STR and LTP cannot.
        zeros: how many zeros the file has, of `count` prunable values.
        allocate: how they were shared among layers.
        reconstruct: how accuracy was won back.
        seconds: time by step of the data flow.
        skipped: calibration files that could not be read.
    """

    source: str
    output: str
    target: float
    hardware: str | None
    holds_target: bool
    count: int
    zeros: int
    recipe: str
    allocate: str
    reconstruct: str
    seed: int
    calibration: str
    skipped: tuple[str, ...]
    parity: Parity
    validation: Validation
    history: tuple[Progress, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on labelled images, as shares of 0 to 1.

    Attributes:
        classes: how many there are labels of.
        scores: "top-1" and "top-5" of a classifier; of a detector "mAP50", VOC 2010's mean of the
            areas under the curves of its classes at an overlap of one half, and "mAP50 (2007)",
            with VOC 2007's eleven points.
        by_class: the first of these for each class, of a detector.
    """

    model: str
    data: str
    samples: int
    classes: int
    scores: dict[str, float]
    skipped: tuple[str, ...]
    by_class: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One method at one target, in a comparison.

    Attributes:
        output: the sparse file; None if there is none.
        zeros: how many of `count` prunable values are zero in it.
        kl, agreement: of the first output that has them, against the dense model.
        scores: on the labelled images, where there are any, as of an `Evaluation`.
        seconds: of the whole run but for measuring it.
        error: why the method could not take the model.
    """

    method: str
    target: float
    seed: int
    output: str | None = None
    zeros: int = 0
    count: int = 0
    kl: float | None = None
    agreement: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    @property
    def note(self) -> str:
        """What there is to say of it: the error, or that the target was missed."""
        if self.error is None and self.zeros != round(self.target * self.count):
            return f"cannot hold a target: {self.zeros / self.count:.2%} zeros"
        return self.error or ""


@dataclass(frozen=True)
class Comparison:
    """Methods side by side on one model.

    Attributes:
        dense: the dense model on the labelled images, if there are any.
    """

    source: str
    dense: Evaluation | None
    trials: tuple[Trial, ...]


def in_words(scores: Mapping[str, float]) -> str:
    """Scores by name, as in a sentence."""
    return ", ".join(f"{name} {score:.2%}" for name, score in scores.items())


def silent(*_: object) -> None:
    """Tell nobody: what takes reports when no one listens."""


def to_json(result: Any) -> str:
    """A result as JSON text, derived figures included."""
    return json.dumps(_plain(result), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        derived = {
            name: getattr(value, name)
            for name, member in vars(type(value)).items()
            if isinstance(member, property)
        }
        shallow = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return _plain(shallow | derived)
    return value

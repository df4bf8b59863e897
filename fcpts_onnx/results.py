"""SHOW: what every command gives back: plain data, ready for a terminal, JSON or a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fcpts_onnx.weights import Weight

__all__ = [
    "Comparison",
    "Departure",
    "Difference",
    "Distribution",
    "Evaluation",
    "Inspection",
    "Output",
    "Parity",
    "Progress",
    "PruneResult",
    "Sizes",
    "Sparsity",
    "TensorDifference",
    "Trial",
    "Validation",
    "WeightValues",
    "silent",
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
        sizes: of what can be pruned, stored in several ways, where that was asked for.
    """

    model: str
    opset: int
    inputs: tuple[str, ...]
    weights: tuple[Weight, ...]
    along: tuple[str, ...]
    heads: tuple[str, ...] = ()
    obstacle: str | None = None
    densities: dict[str, float] = field(default_factory=dict)
    sizes: tuple[Sizes, ...] = ()

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
class Departure:
    """A sample on which the sparse model says something else than the dense one.

    Attributes:
        place: of the sample in the calibration set, from 0 on.
        kl: KL(dense || sparse) of its classes, in nats.
        dense, sparse: the likeliest classes, each with its probability.
        picture: the image that the models saw, as WebP in base64; None where it is none.
    """

    place: int
    kl: float
    dense: tuple[tuple[int, float], ...]
    sparse: tuple[tuple[int, float], ...]
    picture: str | None


@dataclass(frozen=True)
class Validation:
    """What was found in a saved sparse file, held against its dense origin.

    Attributes:
        changed: the tensors whose values differ.
        same_graph: whether nothing but tensor values differs.
        twin_error: worst relative difference between onnxruntime and the twin it came from.
        furthest: the samples on which classes are furthest apart, the worst first.
    """

    model: str
    samples: int
    weights: tuple[Sparsity, ...]
    changed: tuple[str, ...]
    same_graph: bool
    outputs: tuple[Output, ...]
    twin_error: float | None = None
    furthest: tuple[Departure, ...] = ()

    @property
    def count(self) -> int:
        """How many values the listed weights have."""
        return sum(weight.count for weight in self.weights)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(weight.zeros for weight in self.weights)


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that two files have differently; pairs are of the first file and the second.

    Attributes:
        types: type and shape.
        changed: how many values differ; None where the shapes do.
        largest: the largest difference of a value; None likewise.
    """

    name: str
    types: tuple[str, str]
    counts: tuple[int, int]
    zeros: tuple[int, int]
    changed: int | None
    largest: float | None


@dataclass(frozen=True)
class Difference:
    """What differs between two files.

    Attributes:
        only_first, only_second: constant tensors that the other one lacks.
        parts: the fields of the files that differ beyond values of tensors.
    """

    first: str
    second: str
    tensors: tuple[TensorDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """How the values of one weight tensor are spread, before and after.

    Attributes:
        reach: the bins lie between -reach and reach; few weights are beyond.
        dense, sparse: the density of all weights, and of those that are not zero, in each bin;
            the area under both is their share of all weights.
        curve: the kernel density of the dense weights at the bins' centres (FCPTS, Eq. 11).
        threshold: below it lies, of the dense weights, the share that is zero now.
    """

    name: str
    reach: float
    dense: tuple[float, ...]
    sparse: tuple[float, ...]
    curve: tuple[float, ...]
    threshold: float


@dataclass(frozen=True)
class Sizes:
    """What the pruned weights take in one way to store them, in bytes, by type of their values."""

    name: str
    float32: int
    float16: int
    int8: int


@dataclass(frozen=True)
class WeightValues:
    """What became of the values of the pruned weights.

    Attributes:
        distributions: by weight, in the order of the graph.
        sizes: of the sparse values, stored dense and in ways that leave zeros out.
        file_bytes: of the dense and the sparse model, with what they keep beside their files.
    """

    distributions: tuple[Distribution, ...]
    sizes: tuple[Sizes, ...]
    file_bytes: tuple[int, int]


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
        settings: the recipe's.
        weight_values: what became of the pruned weights' values.
        versions: of what it was made with.
        command: the command line it came from, if it came from one.
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
    settings: dict[str, Any]
    weight_values: WeightValues
    versions: dict[str, str]
    command: str | None = None


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


def silent(*_: object) -> None:
    """Tell nobody: what takes reports when no one listens."""

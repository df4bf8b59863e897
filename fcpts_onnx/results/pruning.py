"""SHOW: what pruning and validation give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcpts_onnx.results.measures import Evaluation

__all__ = [
    "Departure",
    "Distribution",
    "Estimate",
    "Output",
    "Parity",
    "Progress",
    "PruneResult",
    "Quantization",
    "Rehearsal",
    "Sizes",
    "Sparsity",
    "Validation",
    "WeightValues",
    "silent",
]


@dataclass(frozen=True)
class Estimate:
    """What zeros may save on a chip, at best.

    Attributes:
        time: relative to the dense model's.
        weight_bytes: with 8 bits a weight, and a bit for where zeros are.
        dense_bytes: with 8 bits a weight.
        known: how many of the `layers` with weights the time is of: those that the chip is known
            to have.
    """

    chip: str
    time: float
    weight_bytes: int
    dense_bytes: int
    known: int
    layers: int


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
        return self.zeros / max(1, self.count)


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
        file: its image, by its path in the calibration folder; None where it is none.
        picture: the image that the models saw, as WebP in base64; None where it is none.
    """

    place: int
    kl: float
    dense: tuple[tuple[int, float], ...]
    sparse: tuple[tuple[int, float], ...]
    file: str | None = None
    picture: str | None = None


class _OfWeights:
    """Sums over the weights that a result lists."""

    weights: tuple[Sparsity, ...]

    @property
    def count(self) -> int:
        """How many values the listed weights have."""
        return sum(weight.count for weight in self.weights)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(weight.zeros for weight in self.weights)


@dataclass(frozen=True)
class Validation(_OfWeights):
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
        target: the share of zeros asked for, or what the objective takes.
        objective: what `goal` is a share of: "sparsity", "latency" or "size".
        goal: as it was given; None where the pattern says how many zeros there are.
        storage: "dense", or "sparse" where weights are stored without zeros.
        pattern: where they may lie.
        hardware: the chip whose densities were kept to, if any.
        asked: zeros that layers were given at least, by weight, for an engine that was probed.
        estimate: what the zeros save on it, at best.
        holds_target: whether the method can end with just that share; STR and LTP cannot.
        zeros: how many zeros the file has, of `count` prunable values.
        allocate: how they were shared among layers.
        reconstruct: how accuracy was won back.
        seconds: time by step of the data flow, with what learning took before an interruption.
        samples: how many the calibration set has.
        skipped: calibration files that could not be read.
        settings: the recipe's.
        weight_values: what became of the pruned weights' values.
        versions: of what it was made with.
        command: the command line it came from, if it came from one.
        accuracy: of the dense and of the sparse model, where there were labelled images.
    """

    source: str
    output: str
    target: float
    objective: str
    goal: float | None
    pattern: str
    storage: str
    hardware: str | None
    asked: dict[str, int]
    estimate: Estimate | None
    holds_target: bool
    count: int
    zeros: int
    recipe: str
    allocate: str
    reconstruct: str
    seed: int
    calibration: str
    samples: int
    skipped: tuple[str, ...]
    parity: Parity
    validation: Validation
    history: tuple[Progress, ...]
    seconds: dict[str, float]
    settings: dict[str, Any]
    weight_values: WeightValues
    versions: dict[str, str]
    command: str | None = None
    accuracy: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Rehearsal:
    """What a run would come to.

    Attributes:
        zeros: how many of `count` prunable values; None where the method cannot hold a target.
        pace: seconds a step, from a few steps.
        seconds: of the whole run, with reading and writing.
        peak_bytes: the most memory that was taken; None where the system does not tell.
    """

    source: str
    target: float
    count: int
    zeros: int | None
    steps: int
    pace: float
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Quantization(_OfWeights):
    """A model in 8 bits.

    Attributes:
        samples: that its ranges were taken from and its outputs compared on.
        zeros_before: of the weights in float.
        weights: their zeros now; small values have become some too.
        against: the model that its outputs are held against.
        file_bytes: of the float model and of this one.
    """

    source: str
    output: str
    samples: int
    zeros_before: int
    weights: tuple[Sparsity, ...]
    against: str
    outputs: tuple[Output, ...]
    file_bytes: tuple[int, int]


def silent(*_: object) -> None:
    """Tell nobody: what takes reports when no one listens."""

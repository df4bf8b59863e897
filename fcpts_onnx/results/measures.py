"""SHOW: what is measured: accuracy, and methods side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Comparison", "Evaluation", "Latency", "Timing", "Trial"]

_MOST_APART = 1e-3  # from onnxruntime; engines round differently


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on labelled images, as shares of 0 to 1.

    Attributes:
        classes: how many the images show.
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
        kl, agreement: of the first output that has them, against the dense model, on images to
            calibrate with.
        scores: on the labelled images, where there are any, as of an `Evaluation`.
        seconds: of the whole run but for measuring it.
        error: why the method could not take the model.
        recipe: what it learned by, where runs of its method beside it learned by another.
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
    recipe: str = ""

    @property
    def label(self) -> str:
        """What it is called beside others."""
        return f"{self.method}, {self.recipe}" if self.recipe else self.method

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
        selection: which weights are pruned, as options say it; all that can be if empty.
    """

    source: str
    dense: Evaluation | None
    trials: tuple[Trial, ...]
    selection: str = ""


@dataclass(frozen=True)
class Timing:
    """One model on one engine.

    Attributes:
        model: "dense" or "sparse".
        milliseconds: the median of a run.
        spread: the quartiles of that, below and above.
        bytes: what the engine's own form of the model takes.
        loading: the least milliseconds of making that ready to run.
        apart: the worst difference of any output from onnxruntime's of the same file, relative
            to that output's largest value; None where onnxruntime has none.
        layers: milliseconds by layer, where the engine tells.
        error: why there is nothing else.
    """

    engine: str
    model: str
    milliseconds: float | None = None
    spread: tuple[float, float] | None = None
    bytes: int | None = None
    loading: float | None = None
    apart: float | None = None
    layers: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def is_verified(self) -> bool:
        """Whether it is known to compute what onnxruntime does."""
        return self.apart is not None and not self.disagrees

    @property
    def disagrees(self) -> bool:
        """Whether the engine computes something else than onnxruntime does."""
        return self.apart is not None and not self.apart <= _MOST_APART


@dataclass(frozen=True)
class Latency:
    """A dense and a sparse model, timed on engines in turns.

    Attributes:
        inputs: their shapes, by name.
        threads: of each engine.
        runs: how often each was timed.
    """

    dense: str
    sparse: str
    inputs: dict[str, list[int]]
    threads: int
    runs: int
    timings: tuple[Timing, ...]

    @property
    def speed_ups(self) -> dict[str, float]:
        """By engine, how many times faster the sparse model is on it."""
        taken = {(t.engine, t.model): t.milliseconds for t in self.timings}
        return {
            engine: dense / sparse
            for (engine, model), dense in taken.items()
            if model == "dense" and dense and (sparse := taken[engine, "sparse"])
        }

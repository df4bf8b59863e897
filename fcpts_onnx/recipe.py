"""Recipe: every knob of the method in one frozen dataclass, read from TOML and checked."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from fcpts_onnx.errors import RecipeError
from fcpts_onnx.files import read_text

__all__ = ["AUGMENTATIONS", "Recipe", "recipe_names", "recipe_text"]

AUGMENTATIONS = ("flip", "crop", "mix")
"""Random views of images: flip, left to right; crop, shifts by up to an eighth of the size; mix,
with up to half of another image, blended over it or as a piece of it."""

_CHOICES = {
    "optimizer": ("adam", "sgd"),
    "precision": ("auto", "float32", "bfloat16"),
    "thresholds": ("cost", "score", "str", "ltp", "probmask"),
    "density": ("kde", "histogram"),
    "start_rates": ("none", "erk"),
}
# Field -> least and greatest accepted value.
_RANGES = {
    "epochs": (0.0, 1e6),
    "min_steps": (1, 1e9),
    "batch_size": (1, 1e6),
    "epochs_to_mix": (0.0, 1e6),
    "learning_rate": (0.0, 1e3),
    "momentum": (0.0, 0.9999),
    "weight_decay": (0.0, 1.0),
    "warmup": (0.0, 1.0),
    "channel_rate": (0.0, 1e3),
    "temperature": (1e-3, 1e3),
    "feature_weight": (0.0, 1e6),
    "control_weight": (0.0, 1e6),
    "threshold_start": (-1e6, 1e3),
    "threshold_rate": (0.0, 1e6),
    "points": (2, 1e6),
    "bandwidth": (0.0, 1e3),
    "ramp": (0.0, 1.0),
    "interval": (1, 1e6),
    "reach": (0.0, 100.0),
    "memory": (0.0, 1.0),
    "kernel": (1e-3, 1.0),
}


@dataclass(frozen=True)
class Recipe:
    """How to learn. The files in fcpts_onnx/recipes say what each named recipe chooses, and why.

    The defaults here are neutral ones for recipes of one's own, not those of the recipe "default":
    `replace(Recipe.load("default"), epochs=10)` changes that one.

    Attributes:
        name: what it is called in results.
        epochs: passes over the calibration set.
        min_steps: at least this many steps, however small the set.
        batch_size: images a step.
        augment: random views of images: "flip", "crop" (shifts), "mix" (of pairs), or none.
        epochs_to_mix: how many epochs a run has to have for "mix", unless the user asks for it.
        precision: of the forward and backward pass; "auto" is bfloat16 where the processor has
            matrix units for it.
        optimizer: of the weights, "adam" or "sgd" (without Nesterov's variant); that of thresholds
            belongs to their method.
        learning_rate: at the top of the schedule; it warms up and decays as a cosine. For adam it
            is relative: a step changes a tensor by about this share of its root mean square.
        rate_by_density: whether to divide the learning rate by the density asked for.
        momentum: of sgd, or Adam's first.
        weight_decay: on weights, and scores of "str"; not on biases and scales.
        warmup: share of the run over which the rate rises.
        channel_scales: whether to learn a scale an output channel; they are folded into the
            weights at the end.
        centred: whether biases make up for what a change of a layer's weights does to the mean of
            what it gives (see `centres`).
        compensated: whether the weights that are left make up for those that masks take (see
            `compensation`); "cost" and fixed rates.
        channel_rate: learning rate of what there is one of a channel (biases, norms, scales), as
            a multiple.
        temperature: of the KL between class scores (Eq. 4).
        feature_weight: what the squared error of the values that the last layers before class
            scores read, relative to their variance, counts beside the KL.
        control_weight: what L_c (Eq. 3) is multiplied with in the loss (Eq. 5); of "ltp", the
            share of weights that is left.
        thresholds: "score": Algorithm 1 to the letter, threshold = sigmoid(score), moved by the
            optimizer; "cost": thresholds move until one more zero costs the same in each layer,
            on a budget that is met at every step; rivals: "str", "ltp" and "probmask".
        threshold_start: where all layers start: a score ("score", "str"), or the square of the
            threshold in units of the layer's variance ("ltp").
        start_rates: "erk": thresholds start where each layer has the zeros that ERK gives it for
            the target, "none": at threshold_start; "score" only.
        threshold_rate: learning rate of scores ("score", "str"), thresholds ("ltp") or
            probabilities ("probmask"), as a multiple.
        density: how p(t) is estimated (Eq. 11): "kde" (Eq. 12) or "histogram" (published code);
            "score" only.
        points: n of Eq. 12.
        bandwidth: h of Eq. 12 in units of the weights; 0 follows the data.
        ramp: share of the run by which the sparsity has risen to the target; "cost" from the
            beginning on, "probmask" after the first 4/15 of that.
        interval: steps between two updates of the masks, or with "score" of the largest thresholds
            that leave each layer its least number of weights.
        reach: how far thresholds move over the ramp: by a factor of exp(reach) if a layer's cost
            were e times the mean all along; "cost" only.
        memory: weight of the past in the running mean of costs; "cost" only.
        kernel: width of the kernel around the threshold, relative to it ("cost"); of the soft
            step, relative to the layer's variance ("ltp").

    Raises:
        RecipeError: a value is out of range.
    """

    name: str = "custom"
    epochs: float = 15.0
    min_steps: int = 500
    batch_size: int = 64
    augment: tuple[str, ...] = ()
    epochs_to_mix: float = 0.0
    precision: str = "auto"
    optimizer: str = "adam"
    learning_rate: float = 0.02
    rate_by_density: bool = False
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup: float = 0.05
    channel_scales: bool = True
    centred: bool = False
    compensated: bool = False
    channel_rate: float = 0.25
    temperature: float = 4.0
    feature_weight: float = 0.0
    control_weight: float = 1.0
    thresholds: str = "cost"
    threshold_start: float = -8.0
    start_rates: str = "none"
    threshold_rate: float = 1.0
    density: str = "kde"
    points: int = 100
    bandwidth: float = 0.0
    ramp: float = 0.5
    interval: int = 8
    reach: float = 4.0
    memory: float = 0.95
    kernel: float = 0.3

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise RecipeError(
                    f"Recipe {self.name!r}: {key} is {getattr(self, key)!r}; expected one of "
                    f"{', '.join(choices)}."
                )
        for key, (least, most) in _RANGES.items():
            value = getattr(self, key)
            kinds = (int,) if isinstance(getattr(type(self), key), int) else (int, float)
            if type(value) not in kinds:
                kind = "an integer" if kinds == (int,) else "a number"
                raise RecipeError(f"Recipe {self.name!r}: {key} is {value!r}; expected {kind}.")
            if not least <= value <= most:
                raise RecipeError(
                    f"Recipe {self.name!r}: {key} is {value:g}; expected {least:g} to {most:g}."
                )
        for key in ("centred", "channel_scales", "compensated", "rate_by_density"):
            if not isinstance(getattr(self, key), bool):
                found = getattr(self, key)
                raise RecipeError(
                    f"Recipe {self.name!r}: {key} is {found!r}; expected true or false."
                )
        if not isinstance(self.augment, tuple):
            raise RecipeError(
                f"Recipe {self.name!r}: augment is {self.augment!r}; expected a list of names."
            )
        if unknown := [kind for kind in self.augment if kind not in AUGMENTATIONS]:
            raise RecipeError(
                f"Recipe {self.name!r}: augment has {', '.join(map(str, unknown))}; "
                f"expected some of {', '.join(AUGMENTATIONS)}."
            )

    @classmethod
    def of(cls, choice: Recipe | str) -> Recipe:
        """A recipe, or the one of a name.

        Raises:
            RecipeError: as `load`.
        """
        return choice if isinstance(choice, Recipe) else cls.load(choice)

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> Recipe:
        """A named recipe, or one from a TOML file: its entries, and what its `base` says else.

        Raises:
            RecipeError: there is no such recipe or file, or an entry is unknown or out of range.
        """
        path = Path(name)
        if str(name) in recipe_names():
            text = recipe_text(str(name))
        elif path.suffix == ".toml":
            try:
                text = read_text(path)
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"{path}: cannot be read: {error}") from error
        else:
            raise RecipeError(
                f"Recipe {str(name)!r} is unknown; expected {', '.join(recipe_names())} "
                "or a .toml file."
            )
        try:
            entries = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{path}: not valid TOML: {error}") from error
        base = entries.pop("base", None)
        if base is not None and base not in recipe_names():
            raise RecipeError(
                f"{path}: base is {base!r}; expected one of {', '.join(recipe_names())}."
            )
        start = {} if base is None else vars(cls.load(base))
        return cls._of({**start, "name": path.stem, **entries})

    @classmethod
    def _of(cls, entries: dict[str, Any]) -> Recipe:
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(entries) - known):
            raise RecipeError(
                f"Recipe {entries['name']!r}: unknown {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}."
            )
        if isinstance(entries.get("augment"), list):
            entries["augment"] = tuple(entries["augment"])
        return cls(**entries)


def recipe_text(name: str) -> str:
    """The TOML file of a recipe that comes with the package."""
    return (files("fcpts_onnx") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")


def recipe_names() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = files("fcpts_onnx") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())

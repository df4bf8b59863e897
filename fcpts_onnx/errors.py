"""Every error that a user can cause: one base class, one child per step of the data flow."""

from __future__ import annotations

__all__ = [
    "CalibrationError",
    "CheckpointError",
    "FcptsError",
    "Interrupted",
    "ModelError",
    "OutputError",
    "ParityError",
    "RecipeError",
    "TargetError",
    "UnsupportedError",
]


class FcptsError(Exception):
    """Base of all errors that name something the user can change.

    The message names the object, says what was found and what was expected, and what to do.
    The command line prints it without a traceback and exits with code 1.
    """


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop.

    Attributes:
        signal: its number; the exit code is 128 more.
    """

    def __init__(self, signal: int, left: str = "nothing was written") -> None:
        super().__init__(signal, left)
        self.signal, self._left = signal, left

    def __str__(self) -> str:
        return f"Interrupted; {self._left}."


class ModelError(FcptsError):
    """The file is not a model that can be loaded or run."""


class UnsupportedError(FcptsError):
    """The model uses operators, attributes or types that the twin does not have."""


class TargetError(FcptsError):
    """The requested sparsity cannot be reached on the selected weights."""


class CalibrationError(FcptsError):
    """The calibration or evaluation data cannot be read or does not fit the model."""


class ParityError(FcptsError):
    """Two runtimes disagree about the same model."""


class RecipeError(FcptsError):
    """A recipe or preprocessing file has an unknown key or a value out of range."""


class OutputError(FcptsError):
    """The result cannot be written."""


class CheckpointError(OutputError):
    """The checkpoint that a run is to go on from cannot be read, or is of another run."""

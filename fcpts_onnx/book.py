"""MEASURE: the results of a comparison, kept in its folder and written anew after each run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cattrs

from fcpts_onnx.errors import OutputError
from fcpts_onnx.files import check_text, locked, read_text, write_text
from fcpts_onnx.report.comparison import markdown, page
from fcpts_onnx.results import Comparison, Evaluation, Trial
from fcpts_onnx.trials import Run, RunSettings, Setting, as_read

__all__ = ["Book", "opened"]

_RESULTS, _TABLE, _PAGE, _LOCK = "results.json", "results.md", "results.html", ".lock"
_NAMED = 3  # of many things that are wrong in a file


@dataclass(frozen=True)
class _Entry:
    """A trial, and what the name of its run stood for."""

    settings: RunSettings
    trial: Trial

    @property
    def name(self) -> tuple[str, float, int]:
        return self.trial.method, self.trial.target, self.trial.seed


@dataclass(frozen=True)
class _Stored:
    """What results.json holds."""

    setting: dict[str, Any]
    dense: Evaluation | None
    runs: list[_Entry]


@contextmanager
def opened(folder: Path, setting: Setting) -> Iterator[Book]:
    """The results of a folder, which is made if there is none, for one comparison at a time.

    Raises:
        OutputError: another comparison is writing there, or what is there is not of this one.
    """
    taken = (
        f"{folder}: another comparison is writing there. Wait for that, or name another folder "
        "with --out."
    )
    with locked(folder / _LOCK, taken):
        yield Book(folder, setting)


class Book:
    """The results of a folder, written anew after each run.

    Attributes:
        dense: what the dense model was measured to have, None as long as it was not.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self._folder, self._setting = folder, setting
        self._path = folder / _RESULTS
        self._same = setting.fingerprint(folder)
        stored = _read(self._path) or _Stored(self._same, None, [])
        there = stored.setting
        every = [*self._same, *(key for key in there if key not in self._same)]
        if apart := [key for key in every if there.get(key) != self._same.get(key)]:
            raise OutputError(
                f"{self._path}: holds results of another comparison: {', '.join(apart)} differ. "
                "Name another folder with --out."
            )
        self.dense, self._entries = stored.dense, stored.runs

    def has(self, run: Run) -> bool:
        """Whether a run was done with just these settings, and its file is there.

        What came to the same at another target is noted for this one too.
        """
        found = self._find(run)
        if found is not None and found.error is None and found.target != run.target:
            self.add(run, replace(found, target=run.target, recipe=""))
        return found is not None and found.error is None

    def drop(self, run: Run) -> None:
        """Forget what is known of the file that a run is about to replace."""
        kept = [entry for entry in self._entries if entry.trial.output != run.output]
        if len(kept) < len(self._entries):
            self._entries = kept
            self._write()

    def add(self, run: Run, trial: Trial) -> None:
        """Note a run and write all that is known."""
        others = [entry for entry in self._entries if entry.name != run.name]
        self._entries = [*others, _Entry(run.settings, trial)]
        self._write()

    def _write(self) -> None:
        stored = _Stored(self._same, self.dense, self._entries)
        write_text(self._path, json.dumps(asdict(stored), indent=2) + "\n")
        trials = tuple(trial for _, trial in _labelled(self._entries))
        found = self._compared(trials)
        write_text(self._folder / _TABLE, markdown(found))
        write_text(self._folder / _PAGE, page(found))

    def comparison(self, wanted: Sequence[Run]) -> Comparison:
        """What the runs gave, in the order they were asked for."""
        trials = tuple(found for run in wanted if (found := self._find(run)) is not None)
        return self._compared(trials)

    def _compared(self, trials: tuple[Trial, ...]) -> Comparison:
        return Comparison(str(self._setting.model), self.dense, trials, self._setting.selection)

    def _find(self, run: Run) -> Trial | None:
        """A result of this run, or else of one that comes to the same."""
        found = [
            (entry.name, trial)
            for entry, trial in _labelled(self._entries)
            if as_read(entry.settings) == as_read(run.settings) and self._is_there(trial)
        ]
        own = [trial for name, trial in found if name == run.name]
        alike = [trial for name, trial in found if not trial.error and run.ends_as(*name)]
        return next(iter(own + alike), None)

    def _is_there(self, trial: Trial) -> bool:
        return trial.output is None or (self._folder / trial.output).is_file()


def _read(file: Path) -> _Stored | None:
    """What a file of results holds; None where it is empty, or there is none.

    Raises:
        OutputError: it cannot be read, or holds something else.
    """
    check_text(file, "JSON")
    if not file.exists() or not file.stat().st_size:
        return None
    converter = cattrs.Converter(forbid_extra_keys=True)
    try:
        return converter.structure(json.loads(read_text(file)), _Stored)
    except (OSError, ValueError, TypeError, KeyError, cattrs.BaseValidationError) as error:
        raise OutputError(
            f"{file}: cannot be read as results of this version's compare: {_reason(error)}. Name "
            "another folder with --out, or delete the file: all runs are then done anew."
        ) from error


def _reason(error: Exception) -> str:
    """What is wrong in a file, first things first."""
    if isinstance(error, cattrs.BaseValidationError):
        return "; ".join(cattrs.transform_error(error)[:_NAMED])
    return str(error)


def _labelled(entries: Sequence[_Entry]) -> Iterator[tuple[_Entry, Trial]]:
    """Entries and their trials, with the recipe's name where those of a method differ."""
    kinds: dict[str, list[RunSettings]] = {}
    for entry in entries:
        known = kinds.setdefault(entry.trial.method, [])
        if not any(as_read(entry.settings) == as_read(other) for other in known):
            known.append(entry.settings)
    for entry in entries:
        known = kinds[entry.trial.method]
        own = next(kind for kind in known if as_read(kind) == as_read(entry.settings))
        name = own["recipe"].get("name")
        alike = [kind for kind in known if kind["recipe"].get("name") == name]
        place = 1 + alike.index(own)  # others of the name, as of a file that was changed
        label = f"{name}" if place == 1 else f"{name} ({place})"
        yield entry, replace(entry.trial, recipe=label if len(known) > 1 else "")

"""The fuzzer: some seconds of it with a fixed seed, and that it tells a fault from a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from tests import networks
from tools import fuzz
from tools.fuzz import Outcome, Tally, examined, main
from tools.mutations import mutated


def run(*options: str | Path) -> Result:
    return CliRunner().invoke(main, [str(option) for option in options])


def test_no_faults_in_some_seconds(tmp_path: Path) -> None:
    result = run("--minutes", "0.25", "--seed", "7", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "out").iterdir()) == []
    lines = result.output.replace(",", "").splitlines()  # of thousands
    counts = dict(line.split()[:2] for line in lines)
    assert int(counts["accepted"]) > 5
    assert int(counts["rejected"]) > 5
    assert (counts["crash"], counts["hang"], counts["memory"]) == ("0", "0", "0")


def test_what_takes_too_long_is_stored(tmp_path: Path) -> None:
    result = run("--minutes", "0.01", "--limit", "0.001", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "hang      0" not in result.output
    stored = tmp_path / "out" / "hang-0-0.onnx"
    assert "0.001 s" in stored.with_suffix(".txt").read_text()
    assert run("--replay", stored).output.split()[0] in ("accepted", "rejected")


def test_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = networks.save(networks.cnn(), tmp_path / "m.onnx")
    assert examined(path) == Outcome("accepted")
    path.write_bytes(b"hello")
    assert examined(path) == Outcome("rejected", "ModelError")
    for error, kind in ((KeyError("w"), "crash"), (MemoryError(), "memory")):
        monkeypatch.setattr(fuzz, "load", lambda _, error=error: (_ for _ in ()).throw(error))
        outcome = examined(path)
        assert (outcome.kind, outcome.is_fault) == (kind, True)
        assert "Traceback" in outcome.reason


def test_table() -> None:
    tally = Tally()
    for outcome in (Outcome("accepted"), *[Outcome("rejected", "ModelError")] * 2):
        tally.add(outcome, 1.25)
    assert list(tally.lines()) == [
        "cases     3, the slowest took 1.2 s",
        "accepted  1",
        "rejected  2",
        "  ModelError: 2",
        "crash     0",
        "hang      0",
        "memory    0",
    ]


def test_mutations_go_by_the_seed_and_break_some_files() -> None:
    content = networks.cnn().SerializeToString()
    first, again = (
        [mutated(content, np.random.default_rng([3, number])) for number in range(200)]
        for _ in range(2)
    )
    assert first == again
    assert len(set(first)) > 150
    readable = 0
    for copy in first:
        try:
            readable += onnx.ModelProto().ParseFromString(copy) > 0
        except Exception:  # protobuf's errors differ by its version
            continue
    assert 100 < readable < 200

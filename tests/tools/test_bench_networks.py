"""The table of the networks' benchmark."""

from __future__ import annotations

from fcpts_onnx.errors import ModelError, UnsupportedError
from tools.bench_networks import reason, table

ROW = {"exporter": "torchscript", "parameters": 1234, "prunable": 1000, "machine": {"threads": "1"}}


def test_table_has_a_line_a_network() -> None:
    done = {"network": "a", "parity": 2e-7, "step_seconds": 0.5, "peak_mib": 400}
    lines = list(table([ROW | done, ROW | {"network": "b", "refused": "lacks X (opset 18)"}]))
    assert lines[2] == "| a | torchscript | 1,234 | 1,000 | 2.0e-07 | 0.5 | 400 |"
    assert lines[3] == "| b | torchscript | 1,234 | 1,000 | not yet: lacks X (opset 18) | - | - |"
    assert lines[5:] == ["- threads 1"]


def test_reason_names_operators_and_not_their_nodes() -> None:
    lacking = (
        "m.onnx: the twin lacks 2 operator(s) of this model:\n  A (opset 18): x, y\n  B: z\nAdd."
    )
    assert reason(UnsupportedError(lacking)) == "lacks A (opset 18); B"
    assert reason(ModelError("m.onnx: is\nbroken.")) == "m.onnx: is broken."

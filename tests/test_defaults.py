"""The command line and Python have the same defaults."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path

import pytest

import fcpts_onnx
from fcpts_onnx.cli.group import main

OTHERWISE = {"target", "seeds"}  # given above; how many instead of which

COMMANDS = {
    "prune": (fcpts_onnx.prune, "a.onnx b.onnx --calib c --target .5"),
    "inspect": (fcpts_onnx.inspect, "a.onnx"),
    "validate": (fcpts_onnx.validate, "a.onnx b.onnx --calib c"),
    "compare": (fcpts_onnx.compare, "a.onnx --calib c --methods lamp --targets .5 --out d"),
    "eval": (fcpts_onnx.evaluate, "a.onnx --data d"),
    "bench": (fcpts_onnx.bench, "a.onnx b.onnx"),
    "quantize": (fcpts_onnx.quantize, "a.onnx b.onnx --calib c"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_the_defaults_of_python(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function, line = COMMANDS[name]
    given = main.commands[name].make_context(name, line.split()).params
    own = {
        key: parameter.default
        for key, parameter in signature(function).parameters.items()
        if parameter.default is not Parameter.empty and key not in OTHERWISE
    }
    shared = own.keys() & given.keys()
    assert len(shared) >= 4
    # What is left out is None on one side and empty on the other.
    assert {key: given[key] or None for key in shared} == {key: own[key] or None for key in shared}

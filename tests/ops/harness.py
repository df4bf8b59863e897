"""Parity cases: one node, run by onnxruntime and by the twin at every schema version."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import fcpts_onnx.runtime  # noqa: F401  lets onnxruntime load opsets that are not released yet
from fcpts_onnx.checks import OLDEST_OPSET
from fcpts_onnx.model import Model
from fcpts_onnx.ops.dtypes import to_numpy, to_torch
from fcpts_onnx.twin import Twin
from tests.other_device import OTHER, OtherDevice

NEWEST_IN_ONNXRUNTIME = 27
"""onnxruntime 1.31 has no kernels for the default domain at opset 28."""


@dataclass(frozen=True)
class Case:
    """One node with inputs.

    Attributes:
        inputs: arrays in order, None where an optional one is left out.
        since, until: the opsets in which these inputs and attributes are what the schema says.
        constants: positions of inputs that are initializers.
        unknown_to_onnxruntime: compare with the reference evaluator of the onnx package, for what
            onnxruntime has no kernel for.
        domain: of the operator; `since` and `until` are then of no meaning.
    """

    op: str
    inputs: tuple[np.ndarray | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    since: int = OLDEST_OPSET
    until: int = NEWEST_IN_ONNXRUNTIME
    outputs: int = 1
    constants: tuple[int, ...] = ()
    note: str = ""
    unknown_to_onnxruntime: bool = False
    domain: str = ""

    def opsets(self) -> list[int]:
        """One opset for each schema version that the case is valid in."""
        if self.domain:
            return [self.since]
        starts = {max(version, self.since) for version in schema_versions(self.op)}
        before = [v for v in schema_versions(self.op) if v <= self.since]
        assert before, f"{self.op} does not exist at opset {self.since}"
        return sorted(v for v in starts | {self.since} if v <= self.until)

    def __str__(self) -> str:
        shapes = "-".join("x".join(map(str, a.shape)) if a is not None else "" for a in self.inputs)
        attributes = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        return " ".join(part for part in (self.op, shapes, attributes[:40], self.note) if part)


def schema_versions(name: str) -> list[int]:
    """The versions of an operator's schema, oldest first."""
    return sorted(
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == name and schema.domain == ""
    )


def expand(cases: list[Case]) -> list[tuple[Case, int]]:
    """Every case at every opset, for parametrisation."""
    return [(case, opset) for case in cases for opset in case.opsets()]


def name_of(value: object) -> str:
    """A test id."""
    return str(value)


def check(case: Case, opset: int) -> None:
    """The twin gives what onnxruntime gives: count, type, shape, values."""
    model = one_node(case, opset)
    feeds = {
        f"x{place}": array
        for place, array in enumerate(case.inputs)
        if array is not None and place not in case.constants
    }
    expected = oracle(model.proto, feeds, case)
    twin = Twin(model)
    inputs = {name: to_torch(array) for name, array in feeds.items()}
    with torch.no_grad():
        found = twin(inputs)
        with OtherDevice():
            twin.prepare(OTHER)
            there = {name: value.cpu() for name, value in twin(inputs).items()}
    for name, value in found.items():
        torch.testing.assert_close(there[name], value, rtol=0, atol=0, equal_nan=True)
    assert len(found) == len(expected) == case.outputs
    for value, wanted in zip(found.values(), expected, strict=True):
        array = to_numpy(value)
        assert array.dtype == wanted.dtype
        assert array.shape == wanted.shape
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-6)


def oracle(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], case: Case) -> list[np.ndarray]:
    """What the outputs should be."""
    if case.unknown_to_onnxruntime:
        return ReferenceEvaluator(proto).run(None, feeds)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def one_node(case: Case, opset: int) -> Model:
    """A model of a single node."""
    names = ["" if array is None else f"x{place}" for place, array in enumerate(case.inputs)]
    outputs = [f"y{place}" for place in range(case.outputs)]
    node = helper.make_node(
        case.op, names, outputs, name=f"the_{case.op}", domain=case.domain, **case.attributes
    )
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for place, (name, array) in enumerate(zip(names, case.inputs, strict=True))
        if array is not None and place not in case.constants
    ]
    constants = [
        numpy_helper.from_array(np.asarray(case.inputs[place]), f"x{place}")
        for place in case.constants
    ]
    graph = helper.make_graph(
        [node], "case", values, [onnx.ValueInfoProto(name=name) for name in outputs], constants
    )
    opsets = [helper.make_opsetid("", opset)]
    if case.domain:
        opsets.append(helper.make_opsetid(case.domain, 1))
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Model(Path("case.onnx"), proto)


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Random normal values, always the same."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def ints(*values: int) -> np.ndarray:
    """A vector of int64."""
    return np.array(values, np.int64)

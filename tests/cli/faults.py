"""Faults brought into a model, for the tests of what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import helper, numpy_helper

from tests import networks


def model(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], object]:
    """Replace the model by a changed one."""

    def spoil(place: Path) -> None:
        proto = networks.cnn()
        change(proto)
        networks.save(proto, place / "in.onnx")

    return spoil


def weights(value: float) -> Callable[[Path], object]:
    """Put a value into the first weight."""

    def change(proto: onnx.ModelProto) -> None:
        array = networks.values(8, 3, 3, 3, seed=1)
        array[0] = value
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "conv.w"))

    return model(change)


def last_node(op: str, **attributes: object) -> Callable[[Path], object]:
    """Put one more node before the output."""

    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[-1].output[0] = "before"
        node = helper.make_node(op, ["before"], ["scores"], f"the {op}", **attributes)
        proto.graph.node.append(node)

    return model(change)


def external(location: str, *, write: bool) -> Callable[[Path], object]:
    """Move the weights into a file that is not there, or not where it may be."""

    def spoil(place: Path) -> None:
        path = place / "in.onnx"
        onnx.save(networks.cnn(), str(path), save_as_external_data=True, size_threshold=64,
                  location="weights.bin")  # fmt: skip
        proto = onnx.load(str(path), load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(proto.SerializeToString())
        if not write:
            (place / "weights.bin").unlink()

    return spoil

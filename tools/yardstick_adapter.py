"""The twin as an implementation for the node tests that ship inside the onnx package.

    python onnx_node_tests.py --impl tools.yardstick_adapter:twin_impl --vision

(the script lies beside the shared models; run it from the root of this project).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from fcpts_onnx.model import Model
from fcpts_onnx.ops.dtypes import to_numpy, to_torch
from fcpts_onnx.twin import Twin

Arrays = list[np.ndarray[Any, Any]]


def twin_impl(model: onnx.ModelProto) -> Callable[[Arrays], Arrays]:
    """Build the twin of a model; what comes back runs it on the graph's inputs in order.

    Raises:
        UnsupportedError: the twin lacks something of the model.
    """
    loaded = Model(Path("model.onnx"), model)
    twin = Twin(loaded)

    def run(inputs: Arrays) -> Arrays:
        tensors = (to_torch(array) for array in inputs)
        with torch.no_grad():
            found = twin(dict(zip(twin.input_names, tensors, strict=True)))
        return [to_numpy(found[name]) for name in twin.output_names]

    return run

"""DEPLOY: what zeros are worth: the densities of a chip, ways to store sparse weights."""

from fcpts_onnx.hardware.chips import CHIPS, target_densities
from fcpts_onnx.hardware.estimate import estimate
from fcpts_onnx.hardware.gains import gains_from, least_zeros
from fcpts_onnx.hardware.storage import sizes, zipped

MNN = "mnn"
DEVICES = (*CHIPS, MNN)
"""What `--hardware` takes: chips by what is published of them, MNN by what it is seen to do."""

__all__ = [
    "CHIPS",
    "DEVICES",
    "MNN",
    "estimate",
    "gains_from",
    "least_zeros",
    "sizes",
    "target_densities",
    "zipped",
]

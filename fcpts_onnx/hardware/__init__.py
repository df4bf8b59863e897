"""DEPLOY: what zeros are worth: the densities of a chip, ways to store sparse weights."""

from fcpts_onnx.hardware.chips import CHIPS, target_densities
from fcpts_onnx.hardware.estimate import estimate, layer_times
from fcpts_onnx.hardware.gains import Times, gains_from, least_zeros, zeros_for_time
from fcpts_onnx.hardware.storage import sizes, zeros_for_size, zipped

MNN = "mnn"
DEVICES = (*CHIPS, MNN)
"""What `--hardware` takes: chips by what is published of them, MNN by what it is seen to do."""

__all__ = [
    "CHIPS",
    "DEVICES",
    "MNN",
    "Times",
    "estimate",
    "gains_from",
    "layer_times",
    "least_zeros",
    "sizes",
    "target_densities",
    "zeros_for_size",
    "zeros_for_time",
    "zipped",
]

"""DEPLOY: what zeros are worth: the densities of a chip, ways to store sparse weights."""

from fcpts_onnx.hardware.chips import CHIPS, target_densities
from fcpts_onnx.hardware.estimate import estimate
from fcpts_onnx.hardware.storage import sizes, zipped

__all__ = ["CHIPS", "estimate", "sizes", "target_densities", "zipped"]

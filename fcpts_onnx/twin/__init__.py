"""TWIN: the graph as a torch module."""

from fcpts_onnx.twin.twin import Twin

__all__ = ["Twin"]

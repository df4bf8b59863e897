"""The networks that the FCPTS paper prunes, in plain torch, and their export as ONNX files."""

from tools.networks.build import NETWORKS, Network, build, fill, load_state
from tools.networks.export import EXPORTERS, export

__all__ = ["EXPORTERS", "NETWORKS", "Network", "build", "export", "fill", "load_state"]

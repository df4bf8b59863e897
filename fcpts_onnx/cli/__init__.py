"""The command line: parse, call, print. No logic."""

from fcpts_onnx.cli import files, learning, measures
from fcpts_onnx.cli.group import main

__all__ = ["files", "learning", "main", "measures"]

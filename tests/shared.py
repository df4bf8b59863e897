"""Real models and images by others; they lie beside the checkout for developers and in CI only."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
MODELS = SHARED / "models"
CIFAR10 = SHARED / "data" / "cifar10"

needs_shared = pytest.mark.skipif(
    not MODELS.is_dir() or not CIFAR10.is_dir(),
    reason="the shared models and images are not beside this checkout",
)


def model_files() -> list[Path]:
    """Every shared model, or a stand-in that `needs_shared` skips."""
    return sorted(MODELS.glob("*.onnx")) or [MODELS / "absent.onnx"]

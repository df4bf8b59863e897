"""What several test files start from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import networks
from tests.networks import QUICK, save_images

# `pytest --hypothesis-profile long tests/test_properties.py` looks for more, each time elsewhere.
_HOW = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("quick", max_examples=100, derandomize=True, **_HOW)
settings.register_profile("long", max_examples=4000, print_blob=True, **_HOW)
settings.load_profile("quick")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """`pytest -n auto`: a process a core, each with one thread, and those that it starts too."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model, images, labelled images and a quick recipe."""
    networks.save(networks.cnn(), tmp_path / "in.onnx")
    save_images(tmp_path / "images", 16)
    for name in ("ant", "bee", "cat", "dog"):
        save_images(tmp_path / "labelled" / name, 3, seed=ord(name[0]))
    (tmp_path / "quick.toml").write_text(QUICK)
    return tmp_path

"""The architecture as a rule: who may import whom."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import fcpts_onnx

PACKAGE = Path(fcpts_onnx.__file__).parent
EVERYONE = {"errors", "files", "recipe", "results", "texts"}

# Module or folder -> what of the package it imports, besides itself and EVERYONE.
ALLOWED = {
    "__init__": {"compare", "examine", "int8", "pipeline", "preprocess", "rehearsal"},
    "__main__": {"cli"},
    "errors": set(),
    "recipe": set(),
    "results": {"weights"},
    "texts": set(),
    "files": set(),
    "branches": set(),
    "checkpoint": {"packing", "team"},
    "packing": set(),
    "checks": {"branches"},
    "sparse_initializers": set(),
    "flow": set(),
    "functions": {"branches"},
    "sequences": {"branches", "functions"},
    "model": {"branches", "checks", "functions", "sequences", "sparse_initializers"},
    "quantization": {"model"},
    "fixed": set(),
    "computed": {"flow"},
    "weights": {"computed", "fixed", "flow", "model", "quantization"},
    "along": {"flow", "model", "weights"},
    "training_form": {"flow", "model", "weights"},
    "selection": {"along", "model", "weights"},
    "ops": set(),
    "twin": {"model", "ops", "weights"},
    "preprocess": {"model"},
    "views": set(),
    "sources": {"preprocess"},
    "arrays": {"model", "preprocess"},
    "calibration": {"arrays", "model", "preprocess", "sources", "views"},
    "runtime": {"model"},
    "sparsity": {
        "calibration", "checkpoint", "packing", "quantization", "team", "twin", "weights",
    },
    "ort_training": {"ops", "runtime", "twin"},
    "write": {"model", "sparse_initializers"},
    "parity": {"model", "weights", "runtime", "twin", "calibration", "ops"},
    "difference": {"model", "weights"},
    "validate": {
        "difference", "weights", "model", "runtime", "twin", "calibration", "sparsity", "parity",
        "quantization",
    },
    "evidence": {"hardware", "model", "sparsity", "weights"},
    "machine": {"team"},
    "clock": {"team", "validate"},
    "int8": {
        "calibration", "model", "preprocess", "runtime", "validate", "weights", "write",
    },
    "evaluate": {
        "model", "ops", "preprocess", "sources", "runtime", "sparsity", "weights", "write",
    },
    "report": {"weights"},
    "team": set(),
    "aim": {"evaluate", "hardware", "model", "sparsity", "team", "weights"},
    "preparation": {
        "along", "calibration", "model", "ort_training", "selection", "sparsity",
        "training_form", "twin", "weights",
    },
    "memory": {"machine", "sparsity", "team", "twin"},
    "methods": {"checkpoint", "sparsity", "twin", "weights"},
    "hardware": {"model", "weights"},
    "choices": {"aim", "methods", "preparation", "preprocess", "sparsity", "twin", "weights"},
    "run": {
        "aim", "calibration", "choices", "clock", "evidence", "memory", "methods", "model",
        "preparation", "sparse_initializers", "sparsity", "team", "twin", "weights", "write",
    },
    "pipeline": {
        "calibration", "checkpoint", "choices", "clock", "evidence", "hardware", "machine",
        "memory", "methods", "model", "parity", "preparation", "preprocess", "publish", "run",
        "sparsity", "team", "weights",
    },
    "rehearsal": {"machine", "methods", "model", "pipeline", "sparsity"},
    "examine": {
        "along", "calibration", "difference", "evaluate", "evidence", "hardware", "model", "ops",
        "preparation", "preprocess", "selection", "sparsity", "twin", "validate", "weights",
    },
    "publish": {
        "calibration", "evidence", "model", "ops", "parity", "twin", "validate", "weights",
        "write",
    },
    "identity": {"sources"},
    "trials": {"examine", "identity", "methods", "model", "pipeline", "preprocess"},
    "book": {"report", "trials"},
    "compare": {
        "book", "calibration", "methods", "model", "preparation", "preprocess", "team", "trials",
    },
    "demo": {"examine", "pipeline", "team"},
    "cli": {
        "aim", "demo", "evidence", "hardware", "int8", "methods", "model", "preprocess", "report",
        "sparsity", "team", "write",
    },
}  # fmt: skip
WITHOUT_TORCH = {
    "along",
    "checks",
    "flow",
    "model",
    "quantization",
    "sequences",
    "sparse_initializers",
    "training_form",
    "weights",
    "write",
    "difference",
    "hardware",
    "report",
    "results",
    "texts",
    "files",
    "recipe",
    "errors",
}


def sources() -> dict[str, list[Path]]:
    """The files of each module or folder of the package."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(room, []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_room_is_listed() -> None:
    assert set(sources()) == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room: str) -> None:
    names = set().union(*(imported(path) for path in sources()[room]))
    rooms = {name.split(".")[1] for name in names if name.startswith("fcpts_onnx.")}
    rooms &= set(ALLOWED)
    assert rooms - EVERYONE - {room} == ALLOWED[room]


@pytest.mark.parametrize("room", sorted(WITHOUT_TORCH))
def test_some_rooms_do_without_torch(room: str) -> None:
    names = set().union(*(imported(path) for path in sources()[room]))
    assert not any(name.split(".")[0] == "torch" for name in names)


def test_methods_do_not_know_each_other() -> None:
    for path in (path for path in sources()["methods"] if path.name != "__init__.py"):
        assert not any(name.startswith("fcpts_onnx.methods") for name in imported(path))


def test_bridge_mask_and_budget_know_no_graph() -> None:
    for module in ("bridge", "mask", "losses"):
        names = imported(PACKAGE / "sparsity" / f"{module}.py")
        assert not any(name.startswith("fcpts_onnx") for name in names)
    names = imported(PACKAGE / "sparsity" / "budget.py")
    rooms = {name.split(".")[1] for name in names if name.startswith("fcpts_onnx.")}
    assert rooms == {"errors", "sparsity", "weights"}


def test_every_module_has_a_docstring_and_lists_its_public_names() -> None:
    for path in (path for paths in sources().values() for path in paths):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path} has no docstring"
        if path.name.startswith("__"):
            continue
        public = {
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
        }
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        listed = importlib.import_module(name).__all__
        # Operators and commands are found by their decorators.
        assert public <= set(listed) or path.parent.name in ("ops", "cli")
        assert all(hasattr(importlib.import_module(name), entry) for entry in listed)


def test_the_package_lists_its_names() -> None:
    assert sorted(fcpts_onnx.__all__) == list(fcpts_onnx.__all__)
    assert all(hasattr(fcpts_onnx, name) for name in fcpts_onnx.__all__)

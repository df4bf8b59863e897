"""What is promised of every run, on random networks: counts, what differs, oracle, fixed point."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import given, note, reject
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import fcpts_onnx
from fcpts_onnx import FcptsError, PruneResult, Recipe
from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.errors import TargetError
from fcpts_onnx.methods import ALLOCATIONS, LAYERWISE, METHODS, RECONSTRUCTIONS, Method
from fcpts_onnx.model import Model, load
from fcpts_onnx.parity import check_parity, oracle_of
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.mask import apply_mask
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight, find_weights
from fcpts_onnx.write import save
from tests.random_networks import Array, Network, random_networks
from tests.sparsity.test_pattern import grouped
from tests.test_pipeline import stored_zeros
from tests.test_write import assert_only_values_differ, may_change

RUNS = [*METHODS.values(), *(Method(a, r, "") for a in ALLOCATIONS for r in RECONSTRUCTIONS)]
KEEPING = [
    run for run in RUNS if run.reconstruct in ("netwise", "none") and run.recipe == "default"
]
REFUSED = re.compile(
    "would empty a layer|of zeros already there|are already|No layer has a whole group|"
    r"Layer by layer cannot take|diverged: the loss is \d"
)
SIZES = [0.0, 1e-45, 1e-6, 0.5, 0.5, 1.0, 3e38]

shares = st.floats(0.02, 0.7)


@st.composite
def cases(
    draw: Callable[..., Any], runs: Sequence[Method], *, whole_numbers: bool = True
) -> tuple[Network, Method]:
    """A way to prune and a network that it takes."""
    how = draw(st.sampled_from(runs))
    is_plain = how.reconstruct in LAYERWISE
    return draw(random_networks(plain=is_plain, whole_numbers=whole_numbers)), how


def target_of(network: Network, share: float) -> float:
    """A target that leaves this share of the weights that are not zero yet to choose from."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(network.proto, f"{folder}/in.onnx")
        found = fcpts_onnx.inspect(f"{folder}/in.onnx")
    present = sum(weight.zeros for weight in found.weights) / found.prunable
    return min(0.99, present + (1 - present) * share)


def prune(
    network: Network, folder: Path, how: Method, target: float | None, pattern: str
) -> PruneResult:
    """A short run; another network where it says that it cannot be, and has written nothing."""
    recipe = replace(Recipe.load(how.recipe), epochs=0, min_steps=4, batch_size=4, interval=1)
    onnx.save(network.proto, str(folder / "in.onnx"))
    note(onnx.printer.to_text(network.proto.graph))
    try:
        return fcpts_onnx.prune(
            folder / "in.onnx", folder / "out.onnx", target=target, calib=[network.data],
            pattern=pattern, recipe=recipe, allocate=how.allocate, reconstruct=how.reconstruct,
            threads=1,
        )  # fmt: skip
    except FcptsError as error:
        assert_refused(error)
        assert [file.name for file in folder.iterdir()] == ["in.onnx"]
        reject()


def assert_refused(error: FcptsError) -> None:
    """See that a network is refused for what it is, and not for a fault of the package."""
    assert REFUSED.search(str(error)), error


def check(network: Network, folder: Path, result: PruneResult) -> None:
    """What is promised of every file that is written."""
    before, after = folder / "in.onnx", folder / "out.onnx"
    saved = load(after)
    assert {weight.name for weight in result.validation.weights} == network.weights
    assert result.count == sum(saved.array(name).size for name in network.weights)
    assert result.zeros == stored_zeros(after, sorted(network.weights))
    for name in network.weights:
        array = saved.array(name).astype(np.float32)
        assert not np.signbit(array[array == 0]).any(), name
    changed = set(result.validation.changed)
    assert changed <= may_change(network.proto)
    assert_only_values_differ(before, after, changed)
    calibration = load_calibration([network.data], saved, PRESETS["raw"])
    twin = Twin(saved)
    check_parity(twin, saved, calibration, oracle_of(twin, saved, threads=1))
    check_fixed_point(saved, changed, folder)


def check_fixed_point(saved: Model, changed: set[str], folder: Path) -> None:
    """Written again, with the values that it has, a file is the same to the byte."""
    for place, values in enumerate(({}, {name: saved.array(name) for name in changed})):
        again = folder / str(place) / "out.onnx"
        again.parent.mkdir()
        save(saved, values, again, again.parent)
        assert again.read_bytes() == saved.path.read_bytes()


def check_pattern(folder: Path, length: int, in_groups: bool) -> None:
    """Of each whole group of input channels half is kept, or blocks of output channels are whole.

    What is left over is dense; so is a layer without an axis of channels, in blocks.
    """
    saved = load(folder / "out.onnx")
    for weight in find_weights(load(folder / "in.onnx")):
        stored = saved.array(weight.name)
        axis = weight.input_axis if in_groups else weight.channel_axis
        kept = (stored if weight.grid is None else weight.grid.values(stored)) != 0
        if axis is None or (in_groups and kept.shape[axis] < length):
            assert in_groups or kept.all()
            continue
        counts = set(grouped(kept, axis, length).sum(1))
        assert counts <= ({length // 2} if in_groups else {0, length}), weight.name
        assert np.moveaxis(kept, axis, -1)[..., kept.shape[axis] // length * length :].all()


@st.composite
def layers(draw: Callable[..., Any]) -> list[Weight]:
    """Weights of any shapes, of which some values are zero already."""
    found = []
    for place in range(draw(st.integers(1, 6))):
        shape = tuple(draw(st.lists(st.integers(1, 12), min_size=2, max_size=4)))
        axis = draw(st.sampled_from([0, 1, None]))
        weight = Weight(f"w{place}", shape, "float32", "Conv", (), axis, 0)
        found.append(replace(weight, zeros=draw(st.integers(0, weight.count))))
    return found


@given(layers(), shares, st.sampled_from(["unstructured", "1x4"]), st.data())
def test_counts_meet_any_budget(
    weights: list[Weight], share: float, pattern: str, data: st.DataObject
) -> None:
    """Whatever is wanted of each layer, and however much of the budget is due."""
    count, present = (sum(getattr(w, what) for w in weights) for what in ("count", "zeros"))
    target = min(0.99, (present + (count - present) * share) / count)
    densities = {w.name: data.draw(st.floats(0, 1)) for w in weights}
    try:
        budget = Budget.of(weights, target, densities, PATTERNS[pattern])
    except TargetError as error:
        assert_refused(error)
        reject()
    wanted = {w.name: data.draw(st.floats(-10, 1e6)) for w in weights}
    due = data.draw(st.sampled_from([None, 0, budget.zeros // 2, budget.zeros]))
    found = budget.counts(wanted, due)
    least = sum(budget.least.values())
    exact = budget.zeros if due is None else max(due, least)
    assert sum(found.values()) == round(exact / budget.unit) * budget.unit
    assert all(budget.least[name] <= n <= budget.most[name] for name, n in found.items())


@given(
    arrays(np.float32, array_shapes(min_dims=2, max_side=9), elements=st.sampled_from(SIZES)),
    st.sampled_from([*PATTERNS]),
    st.sampled_from([0, 1, None]),
    st.floats(0, 1),
)
def test_masks_have_their_zeros(sizes: Array, pattern: str, axis: int | None, share: float) -> None:
    """Ties, zeros and the greatest values included."""
    rule, inputs = PATTERNS[pattern], None if axis is None else 1 - axis
    one = Weight("w", sizes.shape, "float32", "Conv", (), axis, 0, input_axis=inputs)
    most = rule.most(one)
    zeros = most if rule.is_fixed else int(share * most) // rule.unit * rule.unit
    mask = rule.mask(one, torch.from_numpy(sizes), zeros)
    assert int((mask == 0).sum()) == zeros
    assert int((apply_mask(mask, torch.from_numpy(sizes)) == 0).sum()) == zeros


@given(cases(RUNS), shares)
def test_every_method(case: tuple[Network, Method], share: float) -> None:
    network, how = case
    target = target_of(network, share)
    with tempfile.TemporaryDirectory() as folder:
        result = prune(network, Path(folder), how, target, "unstructured")
        if result.holds_target:
            assert result.zeros == round(target * result.count)
        check(network, Path(folder), result)


@given(cases(KEEPING, whole_numbers=False), shares, st.sampled_from(["2:4", "4:8", "1x4"]))
def test_every_pattern(case: tuple[Network, Method], share: float, pattern: str) -> None:
    network, how = case
    unit = int(pattern[-1])
    target = target_of(network, share) if pattern == "1x4" else None
    with tempfile.TemporaryDirectory() as folder:
        result = prune(network, Path(folder), how, target, pattern)
        if target is not None:
            assert result.zeros == round(target * result.count / unit) * unit
        check(network, Path(folder), result)
        check_pattern(Path(folder), unit, target is None)

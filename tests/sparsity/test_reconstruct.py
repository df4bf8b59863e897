"""The learning loop on small networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from fcpts_onnx.along import learned_along
from fcpts_onnx.calibration import Calibration, load_calibration
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.methods import NETWISE, recovered
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Progress
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.centres import centres_of
from fcpts_onnx.sparsity.compensation import compensations_of
from fcpts_onnx.sparsity.losses import Head, reconstruction_loss
from fcpts_onnx.sparsity.reconstruct import Learned
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight, find_weights
from tests import networks
from tests.other_device import OTHER, OtherDevice

RECIPE = Recipe(epochs=0, min_steps=120, batch_size=32, interval=2, precision="float32")


HEADS = (Head("scores", "kl"),)


def met(dense: dict[str, torch.Tensor], sparse: dict[str, torch.Tensor]) -> torch.Tensor:
    return reconstruction_loss(dense, sparse, HEADS, RECIPE.temperature)


def setting(**options: object) -> tuple[Twin, Calibration, list[Weight]]:
    model = Model(Path("m.onnx"), networks.cnn(**options))
    weights = find_weights(model)
    twin = Twin(model, [weight.name for weight in weights] + learned_along(model, weights))
    twin.per_sample = bool(options)
    images = [networks.values(96, 3, 8, 8, scale=1.0)]
    return twin, load_calibration(images, model, PRESETS["raw"]), weights


def learn(task: Task) -> Learned:
    """The loop, with the thresholds of the recipe."""
    return recovered(task, NETWISE)


def learned_by(
    twin: Twin, calibration: Calibration, weights: list[Weight], budget: Budget, recipe: Recipe
) -> dict[str, torch.Tensor]:
    return learn(Task(twin, calibration, weights, budget, recipe, HEADS)).tensors


def loss_of(calibration: Calibration, learned: dict[str, torch.Tensor]) -> float:
    fresh, _, _ = setting()
    (batch,) = calibration.batches(96)
    with torch.no_grad():
        return float(met(fresh(batch), fresh(batch, learned)))


def one_shot(weights: list[Weight], twin: Twin, target: float) -> dict[str, torch.Tensor]:
    """Each layer's smallest weights set to zero, nothing learned."""
    result = {}
    for weight in weights:
        value = twin.learned[weight.name].detach()
        threshold = value.abs().flatten().kthvalue(round(target * weight.count)).values
        result[weight.name] = value * (value.abs() > threshold)
    return result


@pytest.mark.parametrize("thresholds", ["cost", "score"])
def test_learning_beats_pruning_at_once(thresholds: str) -> None:
    twin, calibration, weights = setting()
    at_once = loss_of(calibration, one_shot(weights, twin, 0.6))
    recipe = replace(RECIPE, thresholds=thresholds, learning_rate=0.05)
    learned = learn(
        Task(twin, calibration, weights, Budget.of(weights, 0.6), recipe, HEADS)
    ).tensors
    assert sum(int((learned[w.name] == 0).sum()) for w in weights) == round(0.6 * 320)
    assert set(learned) == {"conv.w", "conv.b", "depthwise.w", "fc.w", "fc.b"}
    assert loss_of(calibration, learned) < at_once / 2


def unfused(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer without its fused form, which a device that is none does not have."""
    return lambda *arguments, **named: optimizer(*arguments, **(named | {"fused": False}))


@pytest.mark.parametrize("method", ["default", "paper", "str", "ltp"])
def test_another_device_learns(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mixes with tensors of the processor would stop a GPU, which few machines here have."""
    for name in ("SGD", "AdamW"):
        monkeypatch.setattr(torch.optim, name, unfused(getattr(torch.optim, name)))
    twin, calibration, weights = setting()
    at_once = loss_of(calibration, one_shot(weights, twin, 0.6))
    recipe = replace(Recipe.load(method), epochs=0, min_steps=60, precision="float32")
    with OtherDevice():
        twin.prepare(OTHER)
        task = Task(twin, calibration, weights, Budget.of(weights, 0.6), recipe, HEADS)
        if recipe.centred:
            task = replace(task, centres=centres_of(twin, calibration, weights))
        if recipe.compensated:
            found = compensations_of(twin, calibration, weights, task.centres)
            task = replace(task, compensations=found)
        learned = learn(task)
    zeros = sum(int((learned.tensors[w.name] == 0).sum()) for w in weights)
    if learned.holds_target:
        assert zeros == round(0.6 * 320)
        assert loss_of(calibration, learned.tensors) < at_once
    assert all(value.device.type == "cpu" for value in learned.tensors.values())


def test_scales_are_folded_into_the_weights() -> None:
    """Weights and biases themselves stand still here: all that is learned is in the scales."""
    twin, calibration, weights = setting()
    before = {weight.name: twin.learned[weight.name].detach().clone() for weight in weights}
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=1e-5, channel_rate=1e3)
    budget = Budget.of(weights, 0.5)
    found = learned_by(twin, calibration, weights, budget, recipe)
    for weight in weights:
        kept = found[weight.name] != 0
        ratio = (found[weight.name] / before[weight.name]).movedim(weight.channel_axis, 0)
        for channel, is_kept in zip(ratio, kept.movedim(weight.channel_axis, 0), strict=True):
            assert float(channel[is_kept].std(correction=0)) < 1e-3
    scales = found["fc.w"][found["fc.w"] != 0] / before["fc.w"][found["fc.w"] != 0]
    assert float((scales - 1).abs().max()) > 0.02


def first_change(recipe: Recipe) -> float:
    """How far a bias is moved."""
    twin, calibration, weights = setting()
    before = twin.learned["fc.b"].detach().clone()
    budget = Budget.of(weights, 0.5)
    found = learned_by(twin, calibration, weights, budget, recipe)
    return float((found["fc.b"] - before).abs().max())


def test_the_rate_warms_up_and_decays() -> None:
    steady = replace(RECIPE, min_steps=1, warmup=0.0)
    assert first_change(replace(steady, warmup=1.0)) == 0.0
    assert first_change(steady) > 0.0
    # Adam moves by about the rate each step: a cosine to zero covers half the way of its start.
    rate = 0.1 * RECIPE.channel_rate * RECIPE.learning_rate
    assert first_change(replace(steady, min_steps=100)) < 75 * rate


def test_the_rate_can_follow_the_density() -> None:
    steady = replace(RECIPE, min_steps=1, warmup=0.0)
    by_density = first_change(replace(steady, rate_by_density=True))
    assert by_density == pytest.approx(2 * first_change(steady), rel=1e-4)  # half are left


def test_weights_decay() -> None:
    def size(decay: float) -> float:
        twin, calibration, weights = setting()
        recipe = replace(
            RECIPE, optimizer="sgd", learning_rate=0.01, weight_decay=decay, channel_scales=False
        )
        found = learn(
            Task(twin, calibration, weights, Budget.of(weights, 0.5), recipe, HEADS)
        ).tensors
        return float(found["conv.w"].abs().sum())

    assert size(1.0) < 0.99 * size(0.0)


def test_half_precision_learns_something_else_of_the_same_kind() -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        twin, calibration, weights = setting()
        recipe = replace(RECIPE, min_steps=10, precision=precision)
        learned = learn(
            Task(twin, calibration, weights, Budget.of(weights, 0.5), recipe, HEADS)
        ).tensors
        found[precision] = learned["fc.w"]
    assert found["bfloat16"].dtype == torch.float32
    assert not torch.equal(*found.values())
    torch.testing.assert_close(*found.values(), atol=0.5, rtol=0.1)


def folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """networks.batch_norm() with its batch norm folded into the convolution before it."""
    values = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    gain = values["bn.scale"] / np.sqrt(values["bn.var"] + 1e-5)
    new = {
        "conv.w": values["conv.w"] * gain[:, None, None, None],
        "conv.b": (values["conv.b"] - values["bn.mean"]) * gain + values["bn.shift"],
    }
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for tensor in result.graph.initializer:
        if tensor.name in new:
            tensor.CopyFrom(numpy_helper.from_array(new[tensor.name], tensor.name))
    del result.graph.node[1]
    result.graph.node[0].output[0] = "n"
    return result


def test_batch_norm_makes_no_difference() -> None:
    """A file with batch norm learns what the same network with batch norm folded in learns."""
    outputs, masks = [], []
    images = [networks.values(96, 3, 8, 8, scale=1.0)]
    for proto in (networks.batch_norm(), folded(networks.batch_norm())):
        model = Model(Path("m.onnx"), proto)
        weights = find_weights(model)
        twin = Twin(model, [weight.name for weight in weights] + learned_along(model, weights))
        calibration = load_calibration(images, model, PRESETS["raw"])
        # Biases stand still: there is one more of them with batch norm. Adam would blow up what
        # rounding makes different.
        recipe = replace(
            RECIPE, min_steps=40, optimizer="sgd", learning_rate=0.01, channel_rate=0.0
        )
        found = learn(
            Task(twin, calibration, weights, Budget.of(weights, 0.6), recipe, HEADS)
        ).tensors
        assert "bn.scale" not in found
        (batch,) = calibration.batches(96)
        with torch.no_grad():
            outputs.append(twin(batch, found)["scores"])
        masks.append(torch.cat([(found[w.name] != 0).flatten() for w in weights]))
    assert float((masks[0] == masks[1]).float().mean()) > 0.99
    # A weight at the threshold may be on either side of it, by the rounding of the machine.
    most = 1e-3 if torch.equal(*masks) else 0.1
    assert float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()) < most


class Faulty:
    """A network whose outputs are spoilt in some of its runs, two of which make a step."""

    def __init__(self, twin: Twin, faults: set[int], factor: float) -> None:
        self._twin, self._faults, self._factor, self._runs = twin, faults, factor, 0
        self.learned = twin.learned

    def constant(self, name: str) -> torch.Tensor:
        return self._twin.constant(name)

    def __call__(
        self, inputs: dict[str, torch.Tensor], replaced: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        self._runs += 1
        outputs = self._twin(inputs, replaced)
        factor = self._factor if self._runs in self._faults else 1.0
        return {name: value * factor for name, value in outputs.items()}


def faulty_run(
    *steps: int, factor: float = float("nan")
) -> tuple[Learned | None, list[str], list[Progress]]:
    """What comes of a run with faults at these steps, counted over all attempts."""
    twin, calibration, weights = setting()
    network = Faulty(twin, {2 * step + 1 for step in steps}, factor)  # after one to know the scale
    recipe = replace(RECIPE, ramp=0.9)
    task = Task(network, calibration, weights, Budget.of(weights, 0.5), recipe, HEADS)
    lines: list[str] = []
    seen: list[Progress] = []
    try:
        return recovered(task, NETWISE, say=lines.append, report=seen.append), lines, seen
    except FcptsError as error:
        return None, [*lines, str(error)], seen


def test_a_run_that_diverges_goes_on_from_where_it_did_well() -> None:
    found, lines, seen = faulty_run(100)
    assert len(lines) == 1
    assert "the loss is nan at step 100 of 120, with a learning rate of 0.02; going" in lines[0]
    assert found is not None
    first = seen[99]  # of the second attempt
    kept = first.step - 1
    assert f"going on from step {kept} with half of it" in lines[0]
    assert 120 // 20 <= 100 - kept <= 3 * 120 // 20
    # Masks and weights are those of that step, not the dense network's.
    assert first.sparsity == pytest.approx(seen[kept].sparsity, abs=0.02)
    assert first.sparsity > 0.4
    assert first.loss < 2 * seen[kept].loss
    assert [progress.step for progress in found.history] == list(range(1, 121))
    zeros = [int((found.tensors[name] == 0).sum()) for name in ("conv.w", "depthwise.w", "fc.w")]
    assert sum(zeros) == 160


def test_a_run_that_diverges_early_starts_anew() -> None:
    found, lines, seen = faulty_run(3)
    assert found is not None
    assert "going on from step 0 with half of it" in lines[0]
    assert seen[2].step == 1


def test_a_loss_beyond_all_bounds_is_divergence_too() -> None:
    found, lines, _ = faulty_run(100, factor=1e4)
    assert found is not None
    assert len(lines) == 1
    assert "going on from step" in lines[0]
    assert "nan" not in lines[0]


def test_a_network_too_large_to_be_copied_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcpts_onnx.sparsity.fallback.LARGEST_COPIED", 300)
    found, lines, _ = faulty_run(100)
    assert found is not None
    assert "going on from step 0 with half of it" in lines[0]


def test_a_run_that_diverges_three_times_ends() -> None:
    found, lines, _ = faulty_run(30, 50, 70)
    assert found is None
    assert [line.count("diverged") for line in lines] == [1, 1, 1]
    assert "with a learning rate of 0.005 too. Lower learning_rate" in lines[-1]


def test_the_papers_recipe_runs() -> None:
    twin, calibration, weights = setting()
    recipe = replace(Recipe.load("paper"), epochs=2.0, augment=())
    found = learn(Task(twin, calibration, weights, Budget.of(weights, 0.5), recipe, HEADS))
    assert sum(int((found.tensors[w.name] == 0).sum()) for w in weights) == 160


def test_progress_is_reported() -> None:
    seen: list[Progress] = []
    twin, calibration, weights = setting()
    budget = Budget.of(weights, 0.5)
    task = Task(twin, calibration, weights, budget, RECIPE, HEADS)
    found = recovered(task, NETWISE, report=seen.append)
    assert found.history == tuple(seen)
    assert [progress.step for progress in seen] == list(range(1, 121))
    assert seen[0].sparsity < 0.1
    assert seen[-1].sparsity == 0.5
    assert seen[-1].seconds_left == 0.0


def test_seeds() -> None:
    def run(seed: int) -> np.ndarray:
        twin, calibration, weights = setting()
        budget = Budget.of(weights, 0.5)
        found = learn(Task(twin, calibration, weights, budget, RECIPE, HEADS, seed=seed))
        return found.tensors["conv.w"].numpy()

    np.testing.assert_array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


def test_a_baked_batch_size_learns_as_well() -> None:
    twin, calibration, weights = setting(batch=1, baked=True)
    at_once = loss_of(calibration, one_shot(weights, twin, 0.6))
    recipe = replace(RECIPE, learning_rate=0.05)
    learned = learn(
        Task(twin, calibration, weights, Budget.of(weights, 0.6), recipe, HEADS)
    ).tensors
    assert loss_of(calibration, learned) < at_once / 2


def test_a_kept_weight_that_is_zero_is_no_zero_too_many() -> None:
    twin, calibration, weights = setting()
    with torch.no_grad():
        twin.learned["depthwise.w"].zero_()
    present = [replace(w, zeros=w.count if w.name == "depthwise.w" else 0) for w in weights]
    recipe, budget = replace(RECIPE, min_steps=4), Budget.of(present, 0.3)
    learned = learned_by(twin, calibration, present, budget, recipe)
    assert sum(int((learned[w.name] == 0).sum()) for w in weights) == 96

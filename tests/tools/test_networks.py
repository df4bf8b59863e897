"""The paper's networks: as large as published, and the same in onnxruntime as in torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from tools.networks import NETWORKS, build, export, fill, load_state
from tools.networks.__main__ import main
from tools.networks.export import BOXES_PER_CLASS, IOU_THRESHOLD, SCORE_THRESHOLD
from tools.networks.ssd import Detector, prior_boxes
from tools.networks.vit import VisionTransformer


@dataclass(frozen=True)
class Count:
    """How many parameters a network has, and where that is published."""

    name: str
    parameters: int
    source: str


TORCHVISION = "torchvision, num_params of the model's weights"
# The dense accuracies of the FCPTS paper are those of its networks.
CHENYAOFO = "github.com/chenyaofo/pytorch-cifar-models"
QFGAOHAO = "no number is published; that of the layers in github.com/qfgaohao/pytorch-ssd"

COUNTS = (
    # With shortcuts of option A, as in akamaster/pytorch_resnet_cifar10, 464,154 and 853,018.
    Count("resnet32", 466_906, f"{CHENYAOFO}: 0.47M"),
    Count("resnet56", 855_770, f"{CHENYAOFO}: 0.86M"),
    Count("resnet18", 11_689_512, TORCHVISION),
    Count("resnet50", 25_557_032, TORCHVISION),
    Count("mobilenetv2", 3_504_872, TORCHVISION),
    Count("regnetx_200mf", 2_684_792, "timm, regnetx_002"),
    Count("regnetx_400mf", 5_495_976, TORCHVISION),
    Count("vit_b_16", 86_567_656, TORCHVISION),
    Count("vit_l_16", 304_326_632, TORCHVISION),
    Count("mobilenetv1_ssd", 9_468_996, QFGAOHAO),
    Count("mobilenetv2_ssdlite", 3_388_228, QFGAOHAO),
)


@pytest.mark.parametrize("case", COUNTS, ids=lambda case: case.name)
def test_parameters_are_as_many_as_published(case: Count) -> None:
    with torch.device("meta"):
        module = NETWORKS[case.name].make()
    assert sum(parameter.numel() for parameter in module.parameters()) == case.parameters


def test_every_network_is_counted() -> None:
    assert [case.name for case in COUNTS] == list(NETWORKS)


def small_vit() -> nn.Module:
    module = VisionTransformer(32, width=48, depth=2, heads=3, classes=10)
    fill(module, 32)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet32", 32),
        ("mobilenetv2", 64),
        ("regnetx_200mf", 64),
        ("vit", 32),
        ("mobilenetv2_ssdlite", 300),
    ],
)
def test_export_agrees_with_torch(name: str, size: int, tmp_path: Path) -> None:
    module = small_vit() if name == "vit" else build(name, size=size)
    export(module, tmp_path / "out.onnx", size=size)
    assert_agreement(module, tmp_path / "out.onnx", images(3, size))


def test_export_by_dynamo_agrees_with_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    export(small_vit(), tmp_path / "out.onnx", size=32, exporter="dynamo")
    assert_agreement(small_vit(), tmp_path / "out.onnx", images(3, 32))


def test_post_processing_ends_in_suppression(tmp_path: Path) -> None:
    module = build("mobilenetv2_ssdlite")
    export(module, tmp_path / "out.onnx", size=300, post_processing=True)
    model = onnx.load(tmp_path / "out.onnx")
    assert model.graph.node[-1].op_type == "NonMaxSuppression"
    assert_agreement(Detector(module).eval(), tmp_path / "out.onnx", images(1, 300))
    scores, boxes, selected = run(tmp_path / "out.onnx", images(1, 300))
    for place in range(20):
        chosen = selected[selected[:, 1] == place, 2]
        assert 0 < len(chosen) <= BOXES_PER_CLASS
        assert (scores[0, place, chosen] > SCORE_THRESHOLD).all()
        overlap = overlaps(boxes[0, chosen]) - np.eye(len(chosen))
        assert overlap.max() <= IOU_THRESHOLD + 1e-5


def test_prior_boxes() -> None:
    priors = prior_boxes() * 300
    assert priors.shape == (3000, 4)
    torch.testing.assert_close(priors[0], torch.tensor([8.0, 8.0, 60.0, 60.0]))
    torch.testing.assert_close(priors[6, :2], torch.tensor([24.0, 8.0]))
    tall = torch.tensor([150.0, 150.0, 285 / 3**0.5, 300.0])  # cut at the image's height
    torch.testing.assert_close(priors[-1], tall)


def test_no_offset_is_the_prior_box() -> None:
    class Still(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(len(x), 3000, 21), torch.zeros(len(x), 3000, 4)

    scores, boxes = Detector(Still())(images(2, 8))
    torch.testing.assert_close(scores, torch.full((2, 20, 3000), 1 / 21))
    center, side = prior_boxes().split(2, 1)
    torch.testing.assert_close(boxes[1], torch.cat((center - side / 2, center + side / 2), 1))


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (build("resnet32", seed=seed) for seed in (0, 0, 1))
    x = images(2, 32)
    assert torch.equal(first(x), again(x))
    assert not torch.allclose(first(x), other(x))


def test_a_state_dict_is_taken_over_by_place() -> None:
    source = build("resnet32")
    state = {
        f"module.layer{place}.{name.rpartition('.')[2]}": value
        for place, (name, value) in enumerate(source.state_dict().items())
        if not name.endswith("num_batches_tracked")
    }
    x = images(2, 32)
    assert torch.equal(build("resnet32", state)(x), source(x))


def test_a_state_dict_of_another_network_is_refused() -> None:
    state = build("resnet32").state_dict()
    target = NETWORKS["resnet56"].make()
    with pytest.raises(ValueError, match="expected"):
        load_state(target, state)
    name = next(iter(state))
    with pytest.raises(ValueError, match=r"\[1, 1\]"):
        load_state(NETWORKS["resnet32"].make(), state | {name: torch.zeros(1, 1)})


def test_command_takes_saved_weights(tmp_path: Path) -> None:
    module, output = build("resnet32", seed=3), tmp_path / "out.onnx"
    torch.save({"state_dict": module.state_dict()}, tmp_path / "in.pth")
    options = ["resnet32", str(output), "--state", str(tmp_path / "in.pth"), "--opset", "13"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert onnx.load(output).opset_import[0].version == 13
    assert_agreement(module, output, images(2, 32))


def test_command_refuses_post_processing_of_a_classifier(tmp_path: Path) -> None:
    options = ["resnet32", str(tmp_path / "out.onnx"), "--post-processing"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert "resnet32 is no detector" in result.output


def images(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def run(path: Path, x: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x.numpy()})


def assert_agreement(module: nn.Module, path: Path, x: Tensor) -> None:
    """The outputs, in order, are those of torch; those that follow are not looked at."""
    with torch.no_grad():
        expected = module(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = run(path, x)
    for one, other in zip(expected, found, strict=False):
        assert one.shape == other.shape
        assert 0.01 < one.std() < 10
        np.testing.assert_allclose(other, one, atol=1e-3 * one.std().item(), rtol=1e-3)


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """(boxes, boxes): intersection over union."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (area[:, None] + area[None] - shared)

"""Make models/: train a small network on scikit-learn's handwritten digits, export it, save images.

    pip install scikit-learn
    python tools/train_demo.py

The 1,797 digits (8x8 pixels, 0..16) come with scikit-learn, from the UCI repository. 1,000 are the
network's training images and the calibration set (unlabelled), the other 797 are kept to measure.
"""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

SEED = 0
TRAINING = 1000
EPOCHS = 60
FOLDER = Path(__file__).parent.parent / "models"


class Digits(nn.Module):
    """Four convolutions with batch norm and a fully connected layer; input (batch, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 32, 64, 64)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = F.relu(norm(conv(x)))
            x = y + x if y.shape == x.shape else y
            x = F.max_pool2d(x, 2) if place == 1 else x
        return self.head(x.mean((2, 3)))


def main() -> None:
    torch.manual_seed(SEED)
    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(pixels))
    train, held_back = order[:TRAINING], order[TRAINING:]

    network = fit(pixels[train], digits.target[train])
    inputs = as_inputs(pixels[held_back])
    right = (network(inputs).argmax(1).numpy() == digits.target[held_back]).mean()
    print(f"top-1 on {len(held_back)} held-back digits: {right:.2%}")

    shutil.rmtree(FOLDER / "calib", ignore_errors=True)
    shutil.rmtree(FOLDER / "labelled", ignore_errors=True)
    for index in train:
        save_png(pixels[index], FOLDER / "calib" / f"{index:04}.png")
    for index in held_back:
        label = str(digits.target[index])
        save_png(pixels[index], FOLDER / "labelled" / label / f"{index:04}.png")
    torch.onnx.export(
        network,
        (as_inputs(pixels[:1]),),
        str(FOLDER / "digits.onnx"),
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )


def fit(pixels: np.ndarray, labels: np.ndarray) -> Digits:
    """Train with shifts by up to one pixel."""
    network = Digits()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.05)
    batches = EPOCHS * (len(pixels) // 50)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=batches)
    x, y = as_inputs(pixels), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(50):
            down, right = torch.randint(-1, 2, (2,)).tolist()
            shifted = x[chosen].roll((down, right), (2, 3))
            loss = F.cross_entropy(network(shifted), y[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def as_inputs(pixels: np.ndarray) -> Tensor:
    """(batch, 8, 8) of 0..255 -> (batch, 1, 8, 8) of 0..1: the preset `unit`."""
    return torch.from_numpy(pixels).float()[:, None] / 255


def save_png(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, optimize=True)


if __name__ == "__main__":
    main()

"""Build a network by name, with random weights of a sensible size or with those of a state dict."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tools.networks.mobilenet import mobilenetv2
from tools.networks.regnet import regnetx_200mf, regnetx_400mf
from tools.networks.resnet import cifar_resnet, resnet18, resnet50
from tools.networks.ssd import mobilenetv1_ssd, mobilenetv2_ssdlite
from tools.networks.vit import vit_b_16, vit_l_16

__all__ = ["NETWORKS", "Network", "build", "fill", "load_state"]


@dataclass(frozen=True)
class Network:
    """How to make a network, and the side of its images."""

    make: Callable[[], nn.Module]
    size: int


NETWORKS = {
    "resnet32": Network(partial(cifar_resnet, 32), 32),
    "resnet56": Network(partial(cifar_resnet, 56), 32),
    "resnet18": Network(resnet18, 224),
    "resnet50": Network(resnet50, 224),
    "mobilenetv2": Network(mobilenetv2, 224),
    "regnetx_200mf": Network(regnetx_200mf, 224),
    "regnetx_400mf": Network(regnetx_400mf, 224),
    "vit_b_16": Network(vit_b_16, 224),
    "vit_l_16": Network(vit_l_16, 224),
    "mobilenetv1_ssd": Network(mobilenetv1_ssd, 300),
    "mobilenetv2_ssdlite": Network(mobilenetv2_ssdlite, 300),
}
"""The networks of the FCPTS paper, by name."""

_COUNTER = "num_batches_tracked"  # of batch norm; older files have none


def build(
    name: str,
    state: Mapping[str, Tensor] | None = None,
    *,
    seed: int = 0,
    size: int | None = None,
) -> nn.Module:
    """A network of NETWORKS, ready to be exported.

    Args:
        state: its weights; random without.
        size: side of the images that statistics of random weights are taken on.

    Raises:
        ValueError: the state dict is one of another network.
    """
    network = NETWORKS[name]
    module = network.make()
    if state is None:
        fill(module, size or network.size, seed=seed)
    else:
        load_state(module, state)
    return module.eval().requires_grad_(False)


@torch.no_grad()
def fill(module: nn.Module, size: int, *, seed: int = 0) -> None:
    """Random weights that keep values of order 1 throughout.

    Convolutions after Kaiming, matrices and embeddings as in ViT; statistics of batch norm are
    those of random images. Batch norm shifts upwards, as it amplifies rounding errors by 1.2 a
    layer where ReLU cuts off half of the values.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, parameter in module.named_parameters():
            if parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            elif parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
            else:
                nn.init.uniform_(parameter, 0.5, 1.5)
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.normal_(norm.bias, 0.5, 0.5)
            norm.momentum = None  # the mean over batches, here of one
        if norms:
            module.train()(torch.randn(8, 3, size, size))


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Take over weights by their place, whatever their layers are called.

    The order of layers is that of torchvision, of chenyaofo/pytorch-cifar-models and of
    qfgaohao/pytorch-ssd. Shapes and the last words of the names (weight, bias, mean ...) have to
    agree all the way.

    Raises:
        ValueError: they do not.
    """
    ours = {k: v for k, v in module.state_dict().items() if not k.endswith(_COUNTER)}
    theirs = {k: v for k, v in state.items() if not k.endswith(_COUNTER)}
    if len(ours) != len(theirs):
        raise ValueError(f"The state dict has {len(theirs)} tensors; expected {len(ours)}.")
    for (our_name, our), (their_name, their) in zip(ours.items(), theirs.items(), strict=True):
        if our.shape != their.shape or _last_word(our_name) != _last_word(their_name):
            raise ValueError(
                f"The state dict has {their_name!r} of shape {list(their.shape)} in the place of "
                f"{our_name!r} of shape {list(our.shape)}."
            )
    module.load_state_dict(dict(zip(ours, theirs.values(), strict=True)), strict=False)


def _last_word(name: str) -> str:
    return re.split("[._]", name)[-1]

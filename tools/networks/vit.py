"""Vision transformers: Dosovitskiy et al., *An Image is Worth 16x16 Words*, 2021."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["VisionTransformer", "vit_b_16", "vit_l_16"]


class Attention(nn.Module):
    """Self-attention of several heads; query, key and value come from one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.in_proj(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each behind its norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Positions(nn.Module):
    """Adds what is learned for each place in the sequence."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pos_embedding


class VisionTransformer(nn.Module):
    """Patches of 16x16 as a sequence, with a token whose last state is classified."""

    def __init__(self, size: int, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.positions = Positions(1 + (size // 16) ** 2, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        token = self.class_token.expand(patches.shape[0], -1, -1)
        x = self.blocks(self.positions(torch.cat((token, patches), 1)))
        return self.head(self.norm(x)[:, 0])


def vit_b_16() -> VisionTransformer:
    """ViT-B/16 for ImageNet at 224x224."""
    return VisionTransformer(224, width=768, depth=12, heads=12, classes=1000)


def vit_l_16() -> VisionTransformer:
    """ViT-L/16 for ImageNet at 224x224."""
    return VisionTransformer(224, width=1024, depth=24, heads=16, classes=1000)

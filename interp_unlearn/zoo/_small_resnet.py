"""A small residual network for small images, trained from scratch here in a minute."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def _conv(into: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, stride, 1, bias=False)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, beside a shortcut (He et al. 2016)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(into, out, stride), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = _conv(out, out), nn.BatchNorm2d(out)
        plain = stride == 1 and into == out
        self.shortcut = (
            nn.Identity() if plain else nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The block's maps."""
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(inner + self.shortcut(x))


class SmallResNet(nn.Module):
    """A stem at half resolution, four residual blocks, mean pooling and a linear head.

    Args:
        n_classes: Number of outputs.
        width: Channels of the first block; the last has four times as many.
    """

    def __init__(self, n_classes: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, width, 2), nn.BatchNorm2d(width), nn.ReLU())
        sizes = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1)]
        self.blocks = nn.Sequential(*(ResidualBlock(*size) for size in sizes))
        self.head = nn.Linear(4 * width, n_classes)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))

"""Architectures at any width, for the small models of the tests and the full-sized ones of the benches. Needs torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Positional(nn.Module):
    """A transformers model as a module of positional inputs that returns its first output."""

    def __init__(self, inner: nn.Module, *names: str, **options: Any) -> None:
        super().__init__()
        self.inner, self.names, self.options = inner, names, options

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.inner(**dict(zip(self.names, args, strict=True)), **self.options, return_dict=False)[0]


class UNet(nn.Module):
    """GroupNorm and SiLU blocks; the decoder rises by transposed convolutions, the last time by bilinear upsampling.

    width: channels of the first level, doubled at each below. [n, 3, h, w] to the same; h and w divisible by 2 ** levels.
    """

    def __init__(self, width: int, levels: int, groups: int) -> None:
        super().__init__()

        def block(i: int, o: int) -> nn.Module:
            layers: list[nn.Module] = []
            for c in (i, o):
                layers += [nn.Conv2d(c, o, 3, padding=1), nn.GroupNorm(groups, o), nn.SiLU()]
            return nn.Sequential(*layers)

        widths = [width << level for level in range(levels + 1)]
        self.down = nn.ModuleList(block(i, o) for i, o in zip([3, *widths], widths[:-1], strict=False))
        self.middle = block(widths[-2], widths[-1])
        self.rise, self.up = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(levels)):
            below, here = widths[level + 1], widths[level]
            if level == 0:
                self.rise.append(nn.Upsample(scale_factor=2, mode="bilinear"))
                self.up.append(block(below + here, here))
            else:
                kernel = 2 if level % 2 == 0 else 4
                self.rise.append(nn.ConvTranspose2d(below, here, kernel, 2, (kernel - 2) // 2))
                self.up.append(block(2 * here, here))
        self.out = nn.Conv2d(width, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for block in self.down:
            x = block(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat([rise(x), kept.pop()], 1))
        return self.out(x)


class WaveNet(nn.Module):
    """Causal dilated convolutions with gates, residual and skip connections. [n, q, t] to [n, q, t]."""

    def __init__(self, channels: int, skip: int, layers: int, stacks: int, q: int) -> None:
        super().__init__()
        c = channels
        self.dilations = [2**i for _ in range(stacks) for i in range(layers)]
        self.first = nn.Conv1d(q, c, 1)
        self.filters = nn.ModuleList(nn.Conv1d(c, c, 2, dilation=d) for d in self.dilations)
        self.gates = nn.ModuleList(nn.Conv1d(c, c, 2, dilation=d) for d in self.dilations)
        self.residuals = nn.ModuleList(nn.Conv1d(c, c, 1) for _ in self.dilations)
        self.skips = nn.ModuleList(nn.Conv1d(c, skip, 1) for _ in self.dilations)
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, q, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        total: Any = 0
        for d, f, g, r, s in zip(self.dilations, self.filters, self.gates, self.residuals, self.skips, strict=True):
            p = F.pad(h, (d, 0))
            z = torch.tanh(f(p)) * torch.sigmoid(g(p))
            total = total + s(z)
            h = h + r(z)
        return self.last(total)

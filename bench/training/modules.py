"""The modules of cases.py, with inputs and targets. Plain torch, so that a measuring process imports no more."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "models"))
from architectures import UNet

Made = tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]


def perceptron(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def labels(batch: int, classes: int = 10) -> torch.Tensor:
    return torch.randint(0, classes, (batch,))


def seed_mlp() -> Made:
    return perceptron(2, 1), (torch.randn(4, 2),), torch.randn(4, 1)


def mlp_small() -> Made:
    return perceptron(64, 256, 256, 10), (torch.randn(32, 64),), labels(32)


def mlp_large() -> Made:
    return perceptron(784, 1024, 1024, 10), (torch.randn(128, 784),), labels(128)


def mnist_cnn() -> Made:
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip
    return module, (torch.randn(64, 1, 28, 28),), labels(64)


class Residual(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
            nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o),
        )  # fmt: skip
        same = i == o and stride == 1
        self.way = nn.Identity() if same else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.way(x))


def resnet18() -> Made:
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for i, o, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Residual(i, o, stride), Residual(o, o, 1)]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    return module, (torch.randn(8, 3, 64, 64),), labels(8)


class Encoder(nn.Module):
    """A layer of BERT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, s, c = x.shape
        q, k, v = (f(x).view(b, s, self.heads, c // self.heads).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = (q @ k.transpose(2, 3) / math.sqrt(c // self.heads)).softmax(-1)
        x = self.norm1(x + self.out((scores @ v).transpose(1, 2).reshape(b, s, c)))
        return self.norm2(x + self.narrow(F.gelu(self.wide(x))))


class Bert(nn.Module):
    def __init__(self, words: int, width: int, layers: int, heads: int, length: int, classes: int) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.words.weight, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*(Encoder(width, heads) for _ in range(layers)))
        self.pool, self.head = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.norm(self.words(ids) + self.positions))
        return self.head(torch.tanh(self.pool(x[:, 0])))


def bert_mini() -> Made:
    return Bert(30522, 256, 4, 4, 128, 2), (torch.randint(0, 30522, (8, 128)),), labels(8, 2)


class LstmClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


def lstm_classifier() -> Made:
    return LstmClassifier(), (torch.randn(32, 50, 64),), labels(32)


def unet() -> Made:
    return UNet(width=16, levels=2, groups=4), (torch.randn(4, 3, 64, 64),), torch.randn(4, 3, 64, 64)


MODULES: dict[str, Callable[[], Made]] = {
    f.__name__: f for f in (seed_mlp, mlp_small, mlp_large, mnist_cnn, resnet18, bert_mini, lstm_classifier, unet)
}

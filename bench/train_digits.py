"""Trains the model that `tiercel demo` classifies digits with, and picks the images that come with it.

    python bench/train_digits.py        needs torch, onnx, scikit-learn

Writes `digits.onnx` (a small convolutional network, opset 17, any batch size) and `digits.npz` (held-out images, their
labels) into the package. Data: scikit-learn's digits, 1,797 images of 8x8 pixels (Alpaydin and Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, CC BY 4.0). A quarter is held out and never trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

DEMO = Path(__file__).resolve().parent.parent / "python" / "tiercel" / "demo"
EPOCHS = 60
REQUIRED = 0.97  # held-out accuracy


class Digits(nn.Module):
    """[n, 1, 8, 8] images in [0, 1] to [n, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(48, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean((2, 3)))


class WithProbabilities(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image).softmax(-1)


def shifted(x: torch.Tensor) -> torch.Tensor:
    """Every image moved by up to one pixel, as a hand would."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    dy, dx = torch.randint(0, 3, (2,)).tolist()
    return padded[:, :, dy : dy + 8, dx : dx + 8]


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    x, held_x, y, held_y = train_test_split(
        images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    x, held, y = torch.from_numpy(x), torch.from_numpy(held_x), torch.from_numpy(y)
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    batches = -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(model(shifted(x[rows])), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            guess = model(held).argmax(1).numpy()
        accuracy = float((guess == held_y).mean())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, held-out accuracy {accuracy:.4f}")
    if accuracy < REQUIRED:
        raise SystemExit(f"held-out accuracy {accuracy:.4f} is below {REQUIRED}")

    path = DEMO / "digits.onnx"
    torch.onnx.export(
        WithProbabilities(model), (held[:1],), str(path), input_names=["image"], output_names=["probabilities"],
        dynamic_axes={"image": {0: "n"}, "probabilities": {0: "n"}}, opset_version=17, dynamo=False,
    )  # fmt: skip
    # One of each digit, in order, then four that the model finds hardest: held-out images all.
    with torch.no_grad():
        sure = model(held).softmax(1).max(1).values.numpy()
    picked = [int(np.flatnonzero(held_y == d)[0]) for d in range(10)]
    picked += [int(i) for i in np.argsort(sure) if i not in picked][:4]
    pixels = (held_x[picked, 0] * 16).round().astype(np.uint8)
    np.savez_compressed(
        DEMO / "digits.npz", images=pixels, labels=held_y[picked].astype(np.int64), accuracy=np.float32(accuracy),
        held_out=np.int64(len(held_y)),
    )  # fmt: skip
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, {accuracy:.2%} of {len(held_y)} held-out images right")


if __name__ == "__main__":
    main()

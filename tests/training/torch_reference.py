"""Fine-tuning in PyTorch as Trainer does it to the exported model: the same weights, data, adapters. Needs torch and transformers."""

from __future__ import annotations

import copy
import io
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import numpy as np
import torch
import transformers as hf
from architectures import Positional
from torch import nn

from tiercel import _core
from tiercel.training import SGD, AdamW, LoRA, Trainer

STEPS = 20
RANK, ALPHA = 8, 16.0
LIMIT = 1e-4  # of the losses' difference
Tensors = tuple[torch.Tensor, ...]

# How the same module becomes a file. Of `training`, the exporter writes BatchNormalization in its training form and keeps the weights'
# names; `zoo` is the export for inference, which folds BatchNormalization into convolutions, transposes matrices and stores equal
# weights once; `plain` is that without folding.
FORMS: dict[str, dict[str, Any]] = {
    "training": {"dynamo": False, "training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False},
    "plain": {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False},
    "zoo": {"dynamo": False, "opset_version": 17},
    "dynamo": {"dynamo": True, "optimize": False, "verbose": False, "external_data": False},
}


@dataclass
class Case:
    """A module, its inputs, the names these have in the file, and labels."""

    module: nn.Module
    inputs: Tensors
    names: list[str]
    labels: torch.Tensor


def resnet(batch: int = 4, side: int = 64, classes: int = 10, **sizes: Any) -> Case:
    torch.manual_seed(0)
    module = Positional(hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=classes, **sizes)), "pixel_values")
    return Case(module, (torch.randn(batch, 3, side, side),), ["x"], torch.randint(0, classes, (batch,)))


def bert(batch: int = 4, length: int = 12, classes: int = 5, **sizes: Any) -> Case:
    """Without dropout; the last tokens are padding."""
    torch.manual_seed(0)
    config = hf.BertConfig(
        num_labels=classes, attn_implementation="eager", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes
    )
    names = ["input_ids", "attention_mask"]
    ids = torch.randint(0, config.vocab_size, (batch, length))
    mask = torch.ones_like(ids)
    mask[:, length - length // 4 :] = 0
    module = Positional(hf.BertForSequenceClassification(config), *names)
    return Case(module, (ids, mask), names, torch.randint(0, classes, (batch,)))


def export(case: Case, form: str) -> bytes:
    module, file = copy.deepcopy(case.module).train(form == "training"), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, case.inputs, file, input_names=case.names, **FORMS[form])
    for name, after in module.named_buffers():  # exporting in training mode runs the module, which changes its statistics
        case.module.get_buffer(name).copy_(after)
    return file.getvalue()


def folded(module: nn.Module) -> nn.Module:
    """Every convolution with the normalisation after it as one convolution: what an export for inference is of."""
    module = copy.deepcopy(module).eval()
    for layer in module.modules():
        if hasattr(layer, "convolution") and hasattr(layer, "normalization"):
            layer.convolution = nn.utils.fusion.fuse_conv_bn_eval(layer.convolution, layer.normalization)
            layer.convolution.bias.requires_grad_(True)
            layer.normalization = nn.Identity()
    return module


class Adapted(nn.Module):
    """A linear layer or a convolution with a low-rank adapter beside. a, b: [in, rank] and [rank, out], or kernels."""

    def __init__(self, base: nn.Linear | nn.Conv2d, a: np.ndarray, b: np.ndarray, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a, self.b = (nn.Parameter(torch.from_numpy(w.copy())) for w in (a, b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.base, nn.Linear):
            low = x @ self.a @ self.b
        else:
            low = nn.functional.conv2d(nn.functional.conv2d(x, self.a, None, self.base.stride, self.base.padding), self.b)
        return self.base(x) + self.scale * low


def adapt(module: nn.Module, model: bytes, trainer: Trainer) -> None:
    """Puts the trainer's adapters beside the layers whose weights they are beside: those of the same values, as names may be lost."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    found = 0
    weights = _core.weights(model, "", [n.removesuffix(".lora_a") for n in trainer.weights if n.endswith(".lora_a")])
    layers = [(parent, name, layer) for parent in module.modules() for name, layer in parent.named_children()]
    for name, w in weights.items():
        for parent, place, layer in layers:
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                continue
            own = layer.weight.detach().numpy()
            if any(w.shape == t.shape and np.allclose(w, t, rtol=1e-5, atol=1e-7) for t in (own, own.T)):
                a, b = (trainer.weights[f"{name}.lora_{k}"] for k in "ab")
                setattr(parent, place, Adapted(layer, a, b, ALPHA / RANK))
                found += 1
    assert found == len(weights) > 0, f"{found} layers for {len(weights)} adapters"


def freeze_all_but_the_head(module: nn.Module) -> None:
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parameter in last.parameters():
        parameter.requires_grad_(True)


Optimizers = tuple[Callable[[], Any], Callable[[Any], torch.optim.Optimizer]]
OPTIMIZERS: dict[str, Callable[[float], Optimizers]] = {
    "momentum": lambda lr: (
        lambda: SGD(lr, momentum=0.9, weight_decay=1e-4),
        lambda p: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=1e-4),
    ),
    "adamw": lambda lr: (lambda: AdamW(lr, weight_decay=0.01), lambda p: torch.optim.AdamW(p, lr, weight_decay=0.01)),
}


def torch_losses(module: nn.Module, case: Case, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    dtype = next(module.parameters()).dtype
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in case.inputs)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(*inputs), case.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@dataclass
class Curves:
    ours: list[float]
    torch: list[float]
    trainer: Trainer
    module: nn.Module
    double: list[float] | None = None  # PyTorch's in double precision

    def worst(self, other: str = "torch", one: str = "ours") -> float:
        return float(np.abs(np.subtract(getattr(self, one), getattr(self, other))).max())


def compare(
    case: Case, model: bytes, form: str, how: str, optimizer: str, lr: float, double: bool = False, steps: int = STEPS,
    threads: int = 1, targets: str | None = None,
) -> Curves:  # fmt: skip
    """Losses of the first steps of both. how: all, head or lora; double: those of PyTorch in double precision too."""
    ours, theirs = OPTIMIZERS[optimizer](lr)
    convolutional = any(isinstance(m, nn.BatchNorm2d) for m in case.module.modules())
    module = folded(case.module) if form == "zoo" and convolutional else copy.deepcopy(case.module).train()
    trainable = LoRA(RANK, ALPHA, targets=targets) if how == "lora" else how
    trainer = Trainer(model, "cross_entropy", ours(), trainable, threads=threads)
    if how == "lora":
        adapt(module, model, trainer)
    elif how == "head":
        freeze_all_but_the_head(module)
    wide = copy.deepcopy(module).double() if double else None
    trained = lambda m: [p for p in m.parameters() if p.requires_grad]  # noqa: E731
    x, y = [t.numpy() for t in case.inputs], case.labels.numpy()
    result = Curves([trainer.step(x, y) for _ in range(steps)], [], trainer, module)
    result.torch = torch_losses(module, case, theirs(trained(module)), steps)
    if wide is not None:
        result.double = torch_losses(wide, case, theirs(trained(wide)), steps)
    return result

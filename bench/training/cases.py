"""The training steps that are compared: modules, data and optimisers in PyTorch, and the files and options by which Tiercel has the same.

Only `prepare` and `make` import torch, so a process that times Tiercel does not hold it.
"""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

CHECKED = 5  # first losses that are compared


@dataclass(frozen=True)
class Case:
    """optimizer: of torch.optim; `options`: its. `training`: exported in training mode, else as for inference."""

    name: str
    about: str
    optimizer: str
    options: dict[str, float]
    loss: str = "cross_entropy"
    training: bool = False


CASES = {
    c.name: c
    for c in (
        Case("seed_mlp", "2-1, batch 4", "SGD", {"lr": 1e-3}, "mse"),
        Case("mlp_small", "64-256-256-10, batch 32", "SGD", {"lr": 1e-3}),
        Case("mlp_large", "784-1024-1024-10, batch 128, Adam", "Adam", {"lr": 1e-4}),
        Case("mnist_cnn", "two convolutions of 32 and 64, batch 64, Adam", "Adam", {"lr": 1e-4}),
        Case("resnet18", "batch 8 of 64x64, SGD with momentum", "SGD", {"lr": 1e-3, "momentum": 0.9}, training=True),
        Case("bert_mini", "4 layers of 256, batch 8 of 128 tokens, AdamW", "AdamW", {"lr": 1e-4, "weight_decay": 0.01}),
        Case("lstm_classifier", "64-128, batch 32 of 50, Adam", "Adam", {"lr": 1e-4}),
        Case("unet", "three levels of 16 to 64, batch 4 of 64x64, Adam", "Adam", {"lr": 1e-4}, "mse"),
    )
}


def make(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    """The module, its inputs and the target; the same at each call."""
    import modules
    import torch

    torch.manual_seed(0)
    module, inputs, target = modules.MODULES[name]()
    return module.train(), inputs, target


def loss_of(case: Case) -> Any:
    from torch.nn import functional as F

    return F.cross_entropy if case.loss == "cross_entropy" else F.mse_loss


def prepare(folder: Path, names: list[str]) -> None:
    """NAME.onnx, NAME.npz (inputs and `target`) and NAME.json (the case, and the losses of its first steps in double precision) for each,
    unless they are there already."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        case, path = CASES[name], folder / f"{name}.onnx"
        beside = path.with_suffix(".json")
        if beside.exists() and json.loads(beside.read_text()).get("case") == asdict(case):
            continue
        module, inputs, target = make(name)
        mode = torch.onnx.TrainingMode.TRAINING if case.training else torch.onnx.TrainingMode.EVAL
        names_of_inputs, file = [f"x{i}" for i in range(len(inputs))], io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module if case.training else module.eval(), inputs, file, input_names=names_of_inputs, dynamo=False, opset_version=17,
                training=mode, do_constant_folding=not case.training,
            )  # fmt: skip
        path.write_bytes(file.getvalue())
        arrays = dict(zip(names_of_inputs, (t.numpy() for t in inputs), strict=True))
        np.savez(path.with_suffix(".npz"), target=target.numpy(), **arrays)
        step = torch_step(case, torch.get_num_threads(), compiled=False, double=True)
        beside.write_text(json.dumps({"case": asdict(case), "losses": [step() for _ in range(CHECKED)]}))


def expected_losses(folder: Path, name: str) -> list[float]:
    losses: list[float] = json.loads((folder / f"{name}.json").read_text())["losses"]
    return losses


def tiercel_step(case: Case, folder: Path, threads: int) -> Any:
    """A function that takes one step and gives its loss."""
    from tiercel import training

    options = dict(case.options)
    optimizer = getattr(training, case.optimizer)(options.pop("lr"), **options)
    trainer = training.Trainer(folder / f"{case.name}.onnx", case.loss, optimizer, threads=threads)
    with np.load(folder / f"{case.name}.npz") as archive:
        feeds = dict(archive)
    target = feeds.pop("target")
    assert trainer.weights  # which makes them
    return lambda: trainer.step(feeds, target)


def torch_step(case: Case, threads: int, compiled: bool, double: bool = False) -> Any:
    """The same of PyTorch. compiled: forward, loss and backward by torch.compile. double: in double precision."""
    import torch

    torch.set_num_threads(threads)
    module, inputs, target = make(case.name)
    if double:
        module, target = module.double(), target.double() if target.is_floating_point() else target
        inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    optimizer, loss_fn = getattr(torch.optim, case.optimizer)(module.parameters(), **case.options), loss_of(case)

    def forward(*x: torch.Tensor) -> torch.Tensor:
        return loss_fn(module(*x), target)

    if compiled:
        forward = torch.compile(forward)

    def step() -> float:
        optimizer.zero_grad()
        loss = forward(*inputs)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def engine_step(engine: str, case: Case, folder: Path, threads: int) -> Any:
    if engine == "tiercel":
        return tiercel_step(case, folder, threads)
    return torch_step(case, threads, engine == "torch.compile")

"""What a training goes on with: a Trainer's checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tiercel.training import checkpoint
from tiercel.training.checkpoint import CheckpointError
from tiercel.training.loop import Fit
from tiercel.training.schedules import Schedule

if TYPE_CHECKING:
    from tiercel.training.trainer import Trainer

Array = np.ndarray[Any, Any]
_KIND = "checkpoint of tiercel"
MOMENTS = {
    "tiercel_m ": "the first moment of ",
    "tiercel_v ": "the second moment of ",
    "tiercel_g ": "the sum of gradients of ",
}
# What a checkpoint says beside the arrays.
_META: dict[str, Any] = {
    "model": str, "settings": dict, "labels": bool, "steps": int, "batches": int, "epochs": int, "pending": int,
    "shares": (int, float), "schedule": dict, "fit": (dict, type(None)),
}  # fmt: skip


def save(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """As Trainer.save_checkpoint."""
    lr, state = trainer.optimizer.lr, dict(trainer._core.state())
    check_finite(trainer, state, path)
    meta = {
        "model": trainer._model_hash(), "settings": _settings(trainer), "labels": trainer._labels, "steps": trainer.steps,
        "batches": trainer.batches, "epochs": trainer.epochs, "pending": trainer._pending, "shares": trainer._shares,
        "schedule": lr.state() if isinstance(lr, Schedule) else {},
        "fit": None if trainer._fit is None else trainer._fit.state(),
    }  # fmt: skip
    checkpoint.write(path, _KIND, meta, state)


def check_finite(trainer: Trainer, state: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
    """Before a state is written."""
    for name, array in state.items():
        if not np.isfinite(array).all():
            moment = next((k for k in MOMENTS if name.startswith(k)), "")
            what = f"{MOMENTS[moment]}{name[len(moment) :]!r}" if moment else f"the weight {name!r}"
            raise CheckpointError(
                f"{what} is not finite after step {trainer.steps}, and no training goes on from there: {os.fspath(path)} "
                "was not written (a smaller learning rate or clip_norm may help)"
            )


def load(trainer: Trainer, path: str | os.PathLike[str], fit: Fit | None = None) -> None:
    """As Trainer.load_checkpoint."""
    meta, arrays = checkpoint.read(path, _KIND)
    where = os.fspath(path)
    for key, kinds in _META.items():
        if key not in meta or not isinstance(meta[key], kinds) or (kinds is int and meta[key] < 0):
            raise CheckpointError(f"{where} is damaged: it does not say {key}")
    own, saved = _settings(trainer), meta["settings"]
    for key in [*own, *(k for k in saved if k not in own)]:
        if own.get(key) != saved.get(key):
            raise CheckpointError(
                f"{where} is of a training with {key} {_shown(saved.get(key))}, this one has {_shown(own.get(key))}"
            )
    if trainer._model_hash() != meta["model"]:
        raise CheckpointError(f"{where} is of another model")
    if trainer._labels != meta["labels"] and trainer.batches:
        raise CheckpointError(f"{where} is of a training with other targets (class numbers or not)")
    before = trainer._core, trainer._labels, trainer._data, trainer._other
    try:
        if trainer._labels != meta["labels"]:
            trainer._restart(meta["labels"])
        _take(trainer, meta, arrays, where, fit)
    except BaseException:
        trainer._core, trainer._labels, trainer._data, trainer._other = before
        if trainer._session is not None:
            trainer._session._follow(trainer._core)
        raise
    trainer._guessed = False


def _take(trainer: Trainer, meta: dict[str, Any], arrays: dict[str, Array], where: str, fit: Fit | None) -> None:
    """Weights are written last, when nothing can be wrong any more."""
    state, lr = dict(trainer._core.state()), trainer.optimizer.lr
    check_arrays(state, arrays, where)
    if fit is not None:
        fit.check(meta["fit"], where)
    old = lr.state() if isinstance(lr, Schedule) else {}
    try:
        if isinstance(lr, Schedule) and meta["schedule"]:
            lr.load_state(meta["schedule"])
        if fit is not None:
            fit.load_state(meta["fit"])
    except Exception as e:
        if isinstance(lr, Schedule) and old:
            lr.load_state(old)
        raise CheckpointError(
            f"{where} is damaged: a schedule or a callback cannot take its state back: {type(e).__name__}: {e}"
        ) from e
    trainer._core.set_state({name: arrays[name] for name in state})
    trainer._core.set_steps(meta["steps"], meta["batches"])
    trainer._pending, trainer._shares, trainer.epochs = meta["pending"], meta["shares"], meta["epochs"]


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What must be the same where a training goes on; all but the learning rate."""
    loss, groups = trainer.loss, trainer._options["groups"]
    weight = None if loss.weight is None else loss.weight.tolist()
    optimizer = trainer.optimizer.spec()
    return {
        "loss": loss.name, "reduction": loss.reduction, "class weights": weight,
        **{f"the loss's {k}": float(v) for k, v in loss.options.items()},
        "optimizer": optimizer.pop("name"), **{f"the optimizer's {k}": v for k, v in optimizer.items()},
        "clip_norm": trainer._options["clip_norm"], "clip_value": trainer._options["clip_value"],
        **{f"the group of {n!r}": list(own) for n, own in groups.items()},
        "accumulate": trainer.accumulate, "seed": trainer._options["seed"],
    }  # fmt: skip


def copy_state(source: Any, to: Any) -> None:
    given = dict(source.state())
    to.set_state({name: given[name] for name, _ in to.state() if name in given})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "..."


def check_arrays(own: Mapping[str, Array], given: Mapping[str, Array], where: str) -> None:
    for name, array in own.items():
        if name not in given:
            raise CheckpointError(f"{where} is of another model: it has no {name!r}")
        if given[name].shape != array.shape or given[name].dtype != array.dtype:
            raise CheckpointError(
                f"{where} is of another model: {name!r} is {given[name].dtype}{list(given[name].shape)} there, "
                f"{array.dtype}{list(array.shape)} here"
            )

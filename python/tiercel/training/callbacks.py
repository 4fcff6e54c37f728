"""What watches a fit: hooks, early stopping, checkpoints, TensorBoard."""

from __future__ import annotations

import importlib
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tiercel.training.checks import number, whole

if TYPE_CHECKING:
    from tiercel.training.loop import History
    from tiercel.training.trainer import Trainer


class Callback:
    """Hooks of ``fit``. ``on_batch`` gets the number of batches so far (1 at the first). ``on_epoch_end`` ends the
    training where it returns True. ``on_fit_end`` comes after an error or an interrupt too. ``state`` and
    ``load_state``: for checkpoints; plain data and arrays."""

    def on_fit_begin(self, trainer: Trainer, history: History) -> None: ...
    def on_batch(self, trainer: Trainer, batch: int, loss: float) -> None: ...
    def on_epoch_end(self, trainer: Trainer, epoch: int, history: History) -> bool | None: ...
    def on_fit_end(self, trainer: Trainer, history: History) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None: ...


class EarlyStopping(Callback):
    """Ends the training when ``monitor`` has not fallen (``mode`` "max": risen) by more than ``min_delta`` for
    ``patience`` epochs (0 is as 1); NaN is no fall. ``restore_best``: the weights of the best epoch come back then, and
    at the end of every fit."""

    def __init__(
        self,
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
        monitor: str = "",
        mode: str = "min",
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode is min or max, not {mode!r}")
        self.patience, self.min_delta = whole("patience", patience), number("min_delta", min_delta)
        self.restore_best = restore_best
        self.monitor, self.sign = monitor, 1.0 if mode == "min" else -1.0
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch, self.bad, self.weights = -1, 0, dict[str, Any]()

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        if not history["loss"]:
            self._forget()

    def on_epoch_end(self, trainer: Trainer, epoch: int, history: History) -> bool | None:
        monitor = self.monitor or ("val_loss" if "val_loss" in history else "loss")
        if monitor not in history:
            raise ValueError(f"EarlyStopping: there is no {monitor!r}; the history has: {', '.join(history)}")
        value = self.sign * history[monitor][-1]
        if not math.isnan(value) and (self.best is None or value < self.best - self.min_delta):
            self.best, self.best_epoch, self.bad = value, epoch, 0
            if self.restore_best:
                self.weights = {name: np.array(a) for name, a in trainer._states().items()}
        else:
            self.bad += 1
        return self.bad >= max(self.patience, 1)

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        if self.weights:
            trainer.load_model_state(self.weights)

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "bad": self.bad, "weights": self.weights}

    def load_state(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch, self.bad, self.weights = (
            state[k] for k in ("best", "best_epoch", "bad", "weights")
        )


class Checkpoint(Callback):
    """Saves a checkpoint after each epoch, with ``every`` after each so many batches too. ``fit(resume=path)`` goes
    on from it."""

    def __init__(self, path: str | os.PathLike[str], every: int = 0) -> None:
        self.path, self.every = os.fspath(path), whole("every", every)

    def on_batch(self, trainer: Trainer, batch: int, loss: float) -> None:
        if self.every and batch % self.every == 0:
            trainer.save_checkpoint(self.path)

    def on_epoch_end(self, trainer: Trainer, epoch: int, history: History) -> bool | None:
        trainer.save_checkpoint(self.path)
        return None


class TensorBoard(Callback):
    """Event files for TensorBoard: the loss and learning rate of each batch, the history of each epoch. Needs
    tensorboardX."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            writer: Any = importlib.import_module("tensorboardX").SummaryWriter  # it has no types
        except ImportError as e:
            raise ImportError("TensorBoard needs tensorboardX: pip install 'tiercel[train]'") from e
        self._writer: Any = writer(os.fspath(folder))

    def on_batch(self, trainer: Trainer, batch: int, loss: float) -> None:
        self._writer.add_scalar("batch/loss", loss, batch)
        self._writer.add_scalar("batch/lr", trainer.optimizer.rate(max(trainer.steps - 1, 0)), batch)

    def on_epoch_end(self, trainer: Trainer, epoch: int, history: History) -> bool | None:
        for name, values in history.items():
            self._writer.add_scalar(f"epoch/{name}", values[-1], epoch)
        return None

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

"""The loop of ``Trainer.fit``: epochs, batches, validation, callbacks, and where it stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiercel.training.callbacks import Callback, Checkpoint
from tiercel.training.checkpoint import CheckpointError
from tiercel.training.schedules import Schedule

if TYPE_CHECKING:
    from tiercel.training.trainer import Trainer

Array = np.ndarray[Any, Any]


class History(dict[str, list[float]]):
    """What ``fit`` measured: an epoch an entry of each list (``loss``, ``seconds``, and with validation data
    ``val_loss``, ``val_accuracy``)."""


class _Function(Callback):
    def __init__(self, call: Callable[[Trainer, int, History], Any]) -> None:
        self.call = call

    def on_epoch_end(self, trainer: Trainer, epoch: int, history: History) -> bool | None:
        return self.call(trainer, epoch, history) is True


class Fit:
    """``settings``: what must be the same where a checkpoint goes on. The order of an epoch depends on the seed and
    its number alone."""

    def __init__(
        self, trainer: Trainer, batches: Callable[[int], Iterable[tuple[Any, Any]]], settings: dict[str, Any]
    ) -> None:
        self.trainer, self.batches, self.settings = trainer, batches, settings
        self.history = History(loss=[], seconds=[])
        self.callbacks: list[Callback] = []
        self.epoch = self.batch = self.count = 0
        self.total = 0.0
        self.stopped = False

    def add_callbacks(self, given: Sequence[Callback | Callable[[Trainer, int, History], Any]]) -> None:
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"callbacks is a list: [{type(given).__name__}(...)]")
        for c in given:
            if isinstance(c, type) or not (isinstance(c, Callback) or callable(c)):
                raise TypeError(f"a callback is a Callback object or a function, not {c!r}")
        made = [c if isinstance(c, Callback) else _Function(c) for c in given]
        self.callbacks = sorted(made, key=lambda c: isinstance(c, Checkpoint))  # these see what the others did

    def run(self, epochs: int, validation: Any, bar: Bar) -> History:
        for c in self.callbacks:
            c.on_fit_begin(self.trainer, self.history)
        while self.epoch < epochs and not self.stopped:
            self._epoch(validation, bar)
        for c in self.callbacks:
            c.on_fit_end(self.trainer, self.history)
        return self.history

    def _epoch(self, validation: Any, bar: Bar) -> None:
        begin = time.perf_counter()
        done = self.batch
        bar.begin(self.epoch)
        for i, batch in enumerate(self.batches(self.epoch)):
            if i < done:
                continue
            x, t = pair(batch)
            loss, n = self.trainer.step(x, t), _length(t)
            self.total, self.count, self.batch = self.total + loss * n, self.count + n, i + 1
            bar.step(loss)
            for c in self.callbacks:
                c.on_batch(self.trainer, self.trainer.batches, loss)
        self.trainer.flush()
        if not self.count:
            raise ValueError(f"epoch {self.epoch + 1} had no batches")
        self.history["loss"].append(self.total / self.count)
        self.history["seconds"].append(time.perf_counter() - begin)
        if validation is not None:
            for name, value in self.trainer.evaluate(*validation).items():
                self.history.setdefault(f"val_{name}", []).append(value)
        if isinstance(self.trainer.optimizer.lr, Schedule):
            self.trainer.optimizer.lr.observe(self.history.get("val_loss", self.history["loss"])[-1])
        epoch, self.epoch, self.batch, self.count, self.total = self.epoch, self.epoch + 1, 0, 0, 0.0
        bar.end(self.history)
        for c in self.callbacks:
            self.stopped |= c.on_epoch_end(self.trainer, epoch, self.history) is True

    def state(self) -> dict[str, Any]:
        return {
            "settings": self.settings, "history": self.history, "epoch": self.epoch, "batch": self.batch, "count": self.count,
            "total": self.total, "stopped": self.stopped, "callbacks": [[type(c).__name__, c.state()] for c in self.callbacks],
        }  # fmt: skip

    def check(self, state: dict[str, Any] | None, path: Any) -> None:
        if state is None:
            raise CheckpointError(f"{path} was not saved during a fit: load_checkpoint takes it")
        for key, value in self.settings.items():
            if state["settings"].get(key) != value:
                raise CheckpointError(
                    f"{path} is of a fit with {key} {state['settings'].get(key)}, this one has {value}"
                )
        kinds = [type(c).__name__ for c in self.callbacks if c.state()]
        saved = [kind for kind, own in state["callbacks"] if own]
        if kinds != saved:
            raise CheckpointError(f"{path} is of a fit with the callbacks {saved}, this one has {kinds}")

    def load_state(self, state: dict[str, Any]) -> None:
        for key in ("epoch", "batch", "count", "total", "stopped"):
            setattr(self, key, state[key])
        self.history = History(state["history"])
        saved = [own for _, own in state["callbacks"] if own]
        for c, own in zip([c for c in self.callbacks if c.state()], saved, strict=True):
            c.load_state(own)


class Bar:
    """A progress bar where tqdm is there. ``wanted`` None: on a terminal."""

    def __init__(self, wanted: bool | None, epochs: int, batches: int | None) -> None:
        self._bar: Any = None
        self.epochs, self.batches = epochs, batches
        self._make: Any = None
        if wanted if wanted is not None else sys.stderr.isatty():
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._make = tqdm

    def begin(self, epoch: int) -> None:
        if self._make:
            self._bar = self._make(total=self.batches, desc=f"epoch {epoch + 1}/{self.epochs}", unit="step")

    def step(self, loss: float) -> None:
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)

    def end(self, history: History) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(f"{k} {v[-1]:.4g}" for k, v in history.items() if k != "seconds"))
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def pair(batch: Any) -> tuple[Any, Any]:
    """A batch (x, y)."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = f"{len(batch)} of them" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(f"a batch is a pair (x, y), not {got}")
    return batch[0], batch[1]


def batches_of(
    inputs: Sequence[Array], y: Array, size: int, rng: np.random.Generator | None
) -> Iterator[tuple[list[Array], Array]]:
    order = None if rng is None else rng.permutation(len(y))
    for i in range(0, len(y), size):
        at = slice(i, i + size) if order is None else order[i : i + size]
        yield [a[at] for a in inputs], y[at]


def _length(t: Any) -> int:
    return len(t) if np.ndim(t) else 1

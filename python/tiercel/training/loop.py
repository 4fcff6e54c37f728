"""The loop of ``Trainer.fit``: epochs, batches, validation, callbacks, and where it stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from tiercel.training.callbacks import Callback, Checkpoint
from tiercel.training.checkpoint import CheckpointError
from tiercel.training.ragged import Ragged
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
        return _is_true(self.call(trainer, epoch, history))


def _is_true(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) and bool(value)


class Fit:
    """``settings``: what must be the same where a checkpoint goes on. ``batches`` gets the number of epochs that the
    trainer had before: the order of an epoch depends on the seed and that number alone."""

    def __init__(
        self, trainer: Trainer, batches: Callable[[int], Iterable[tuple[Any, Any]]], settings: dict[str, Any]
    ) -> None:
        self.trainer, self.batches, self.settings = trainer, batches, settings
        self.history = History(loss=[], seconds=[])
        self.callbacks: list[Callback] = []
        self.first = trainer.epochs  # those of fits before
        self.epoch = self.batch = 0
        self.count = self.total = 0.0
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
        begun: list[Callback] = []
        try:
            for c in self.callbacks:
                c.on_fit_begin(self.trainer, self.history)
                begun.append(c)
            while self.epoch < epochs and not self.stopped:
                self._epoch(validation, bar)
        finally:  # each of them, whatever another one raises
            with ExitStack() as ends:
                for c in reversed(begun):
                    ends.callback(c.on_fit_end, self.trainer, self.history)
        return self.history

    def _epoch(self, validation: Any, bar: Bar) -> None:
        begin = time.perf_counter()
        done = self.batch
        bar.begin(self.epoch)
        for i, batch in enumerate(self.batches(self.first + self.epoch)):
            if i < done:
                continue
            x, t = pair(batch)
            loss, share = self.trainer._take_batch(x, t)
            self.total, self.count, self.batch = self.total + loss * share, self.count + share, i + 1
            bar.step(loss)
            for c in self.callbacks:
                c.on_batch(self.trainer, self.trainer.batches, loss)
        self.trainer.flush()
        if not self.count:
            raise ValueError(f"epoch {self.epoch + 1} had no batches")
        self.history["loss"].append(self.total * self.trainer.loss.scale(self.count))
        self.history["seconds"].append(time.perf_counter() - begin)
        if validation is not None:
            for name, value in self.trainer.evaluate(*validation).items():
                self.history.setdefault(f"val_{name}", []).append(value)
        if isinstance(self.trainer.optimizer.lr, Schedule):
            self.trainer.optimizer.lr.observe(self.history.get("val_loss", self.history["loss"])[-1])
        epoch, self.epoch, self.batch, self.count, self.total = self.epoch, self.epoch + 1, 0, 0.0, 0.0
        self.trainer.epochs += 1
        bar.end(self.history)
        for c in self.callbacks:
            self.stopped |= _is_true(c.on_epoch_end(self.trainer, epoch, self.history))

    def state(self) -> dict[str, Any]:
        return {
            "settings": self.settings, "history": self.history, "first": self.first, "epoch": self.epoch, "batch": self.batch,
            "count": self.count, "total": self.total, "stopped": self.stopped,
            "callbacks": [[type(c).__name__, c.state()] for c in self.callbacks],
        }  # fmt: skip

    def check(self, state: dict[str, Any] | None, path: Any) -> None:
        if state is None:
            raise CheckpointError(f"{path} was not saved during a fit: load_checkpoint takes it")
        for key, kinds in _STATE.items():
            if not isinstance(state.get(key), kinds) or (kinds is int and state[key] < 0):
                raise CheckpointError(f"{path} is damaged: {key} of its fit is {state.get(key)!r}")
        saved_settings: dict[str, Any] = state["settings"]
        for key in [*self.settings, *saved_settings]:
            if saved_settings.get(key) != self.settings.get(key):
                raise CheckpointError(
                    f"{path} is of a fit with {key} {saved_settings.get(key)}, this one has {self.settings.get(key)}"
                )
        lists = [state["history"].get(key) for key in self.history]
        if not all(isinstance(v, list) for v in lists) or any(len(v) != state["epoch"] for v in lists):
            raise CheckpointError(f"{path} is damaged: its history is not one of {state['epoch']} epochs")
        if not all(isinstance(row, list) and len(row) == 2 for row in state["callbacks"]):
            raise CheckpointError(f"{path} is damaged: the states of its callbacks are not pairs")
        here = [type(c).__name__ for c in self.callbacks if c.state()]
        saved = [kind for kind, own in state["callbacks"] if own]
        if here != saved:
            raise CheckpointError(f"{path} is of a fit with the callbacks {saved}, this one has {here}")

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes back what ``state`` gave. Where a callback cannot, the others stay as they were."""
        own = [c for c in self.callbacks if c.state()]
        before = [c.state() for c in own]
        try:
            for c, saved in zip(own, [saved for _, saved in state["callbacks"] if saved], strict=True):
                c.load_state(saved)
        except BaseException:
            for c, old in zip(own, before, strict=True):
                c.load_state(old)
            raise
        for key in _STATE:
            if key not in ("settings", "history", "callbacks"):
                setattr(self, key, state[key])
        self.history = History(state["history"])


# What a fit in a checkpoint says.
_STATE: dict[str, Any] = {
    "settings": dict, "history": dict, "first": int, "epoch": int, "batch": int, "count": (int, float), "total": (int, float),
    "stopped": bool, "callbacks": list,
}  # fmt: skip


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


def checked_validation(validation: Any, epochs: int) -> Any:
    """A share as a float, (x, y), what gives batches, or None."""
    if isinstance(validation, (int, float, np.number)) and not isinstance(validation, float):
        validation = float(validation)
    if isinstance(validation, str) or (isinstance(validation, tuple) and len(validation) != 2):
        raise ValueError("validation is (x, y), a list of batches (x, y) or a share of the samples")
    if validation is not None and not isinstance(validation, (float, Iterable)):
        raise ValueError(f"validation is (x, y), a list of batches or a share, not {type(validation).__name__}")
    if epochs > 1 and not isinstance(validation, (float, type(None))) and iter(validation) is validation:
        raise ValueError(
            f"an iterator serves one validation: give what can be iterated {epochs} times, such as a list of batches"
        )
    return validation


def pair(batch: Any) -> tuple[Any, Any]:
    """A batch (x, y)."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = f"{len(batch)} of them" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(f"a batch is a pair (x, y), not {got}")
    return batch[0], batch[1]


# So many batches bucketing sorts by length at a time; chance says which samples these are, and the order of batches.
_SORTED = 32


def batches_of(
    inputs: Sequence[Array | Ragged], y: Array | Ragged, size: int, rng: np.random.Generator | None, bucket: bool = False
) -> Iterator[tuple[list[Array | Ragged], Array | Ragged]]:
    """In their order, or in one that ``rng`` draws; ``bucket``: batches of sequences of about one length."""
    order = None if rng is None else rng.permutation(len(y))
    cuts = [slice(i, i + size) for i in range(0, len(y), size)]
    if bucket and order is not None and rng is not None:
        lengths = next(a.lengths for a in inputs if isinstance(a, Ragged))
        for i in range(0, len(order), size * _SORTED):
            part = order[i : i + size * _SORTED]
            order[i : i + size * _SORTED] = part[lengths[part].argsort(kind="stable")]
        cuts = [cuts[i] for i in rng.permutation(len(cuts))]
    for cut in cuts:
        at = cut if order is None else order[cut]
        yield [a[at] for a in inputs], y[at]

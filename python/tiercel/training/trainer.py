"""Trainer: a model, a loss and an optimiser, fed with batches."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from tiercel import _core
from tiercel.errors import Error, RuntimeException
from tiercel.training import checkpoint, lora, resume
from tiercel.training.callbacks import Callback
from tiercel.training.checks import number, replace_file, whole
from tiercel.training.feeds import Feed, recompute_options
from tiercel.training.live import LiveSession
from tiercel.training.loop import Bar, Fit, History, batches_of, checked_validation, pair
from tiercel.training.lora import LoRA
from tiercel.training.losses import Loss
from tiercel.training.models import model_bytes, model_info
from tiercel.training.optimizers import Optimizer, optimizer_of
from tiercel.training.ragged import Ragged
from tiercel.training.resume import MOMENTS, check_arrays, check_finite, copy_state
from tiercel.training.trainable import options_of, weights_of

Array = np.ndarray[Any, Any]
Arrays = Array | Sequence[Any] | Mapping[str, Any]


_trainers: weakref.WeakSet[Trainer] = weakref.WeakSet()


def _unlock() -> None:
    """In a forked child no other thread is there that would leave what it was in."""
    for t in list(_trainers):
        t._lock, t._moving = threading.Lock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


class Trainer:
    """``model``: a path, .onnx bytes, an onnx.ModelProto, a Sequential or an InferenceSession. ``loss``: a name or a
    Loss; ``optimizer``: a name or an Optimizer. ``trainable``: "all", "head" (the last layer), patterns (fnmatch) of
    weights' names, or a LoRA. ``output``: the one that the loss is of, by default the first. ``clip_norm``,
    ``clip_value``: of the gradients. ``seed``: of Dropout and of LoRA's first weights. ``threads``: 0 for all.
    ``groups``: {pattern: {"lr": factor, "weight_decay": value}}, the first that matches a weight's name.
    ``accumulate``: so many batches make one step, as if they were one batch. ``recompute``: what the backward pass
    computes again rather than keep. By default results of elementwise operators and layer normalisation where what they
    are made of is kept anyway; "none": nothing; "sqrt", a number of segments, or patterns of values' names that are
    kept: gradient checkpointing, of the forward pass only what goes from one segment to the next is kept. ``atomic``:
    where a gradient is not finite, which is an error, no weight at all has changed, whatever the model's size; that
    takes the memory of all gradients at once. ``lengths``: the input that says how long the sequences of a batch are
    ([batch], or a mask [batch, T]); by default one of a usual name, such as "lengths" or "attention_mask". What is
    given as a list of sequences is padded, and that input fed."""

    def __init__(
        self,
        model: Any,
        loss: str | Loss = "mse",
        optimizer: str | Optimizer = "sgd",
        trainable: str | Sequence[str] | LoRA = "all",
        output: str = "",
        clip_norm: float = 0.0,
        clip_value: float = 0.0,
        seed: int = 0,
        threads: int = 0,
        groups: Mapping[str, Mapping[str, float]] | None = None,
        accumulate: int = 1,
        recompute: str | int | Sequence[str] | None = None,
        atomic: bool = False,
        lengths: str = "",
    ) -> None:
        self._data, self._folder = model_bytes(model)
        if not isinstance(loss, (str, Loss)):
            raise TypeError(f"loss is a name or a Loss, not {loss!r}")
        if not isinstance(output, str):
            raise TypeError(f"output is the name of one, not {output!r}")
        if not isinstance(lengths, str):
            raise TypeError(f"lengths is the name of an input, not {lengths!r}")
        info = model_info(model, self._data, self._folder)
        self._feed = Feed(info, output, lengths)
        self.input_names: list[str] = self._feed.names
        self.loss = Loss(loss) if isinstance(loss, str) else loss
        if self._feed.pads:  # then padding may be told from targets
            self.loss = self.loss.of_padded()
        self.optimizer = optimizer_of(optimizer)
        clip_norm, clip_value = number("clip_norm", clip_norm), number("clip_value", clip_value)
        accumulate, threads = whole("accumulate", accumulate, 1), whole("threads", threads)
        seed = whole("seed", seed, -(2**63))
        self.accumulate, self._pending, self._shares = accumulate, 0, 0.0
        self._lora = trainable if isinstance(trainable, LoRA) else None
        self._forms = self._lora.forms(self._data, self._folder) if self._lora else {}
        self._trainable = weights_of(trainable, self._data, self._folder, output)
        self._trainable += [f"{n}.lora_{k}" for n in self._forms for k in "ab"]
        self._options: dict[str, Any] = {
            "output": output,
            "clip_norm": clip_norm,
            "clip_value": clip_value,
            "seed": seed,
            "threads": threads,
            "accumulate": accumulate > 1,
            "atomic": bool(atomic),
            **recompute_options(recompute),
            "groups": options_of(groups or {}, self._trainable or _core.trainable_weights(self._data, self._folder)),
            "adapters": list(self._forms),
            "rank": self._lora.rank if self._lora else 0,
            "alpha": self._lora.alpha if self._lora else 0.0,
        }
        self.epochs = 0  # of all fits
        self._session: LiveSession | None = None
        self._handed_out = False  # may somebody write to the weights?
        self._fit: Fit | None = None
        self._frame: str | None = None
        self._lock = threading.Lock()
        self._moving = threading.RLock()  # states and counters change, or are read, together
        _trainers.add(self)
        self._labels = self.loss.may_take_labels
        self._guessed = self.loss.name == "cross_entropy"  # until targets come
        self._other: Any = None  # evaluates targets of the other form
        self._core: Any = self._made(self._labels)
        for note in self._core.notes:
            warnings.warn(note, stacklevel=2)
        if not self._forms:  # the core has them
            self._data = b""
        else:
            lora.begin(dict(self._core.state()), list(self._forms), seed)

    # ---- Steps

    def step(self, x: Arrays, y: Any) -> float:
        """One step on a batch (with ``accumulate`` a part of one); gives its loss. A loss or a gradient that is not
        finite is an error. The weights then stay as they were; of a gradient where they take up to 1 MiB, with
        clipping or if the trainer is ``atomic``: else some may have taken the step."""
        return self._take_batch(x, y)[0]

    def _take_batch(self, x: Arrays, y: Any) -> tuple[float, float]:
        """The loss of a step, and the batch's weight beside others."""
        inputs, target = self._feed.batch(x, y, self.loss)
        core = self._for(target)
        arrays = [*inputs, self._target(target, self._labels)]
        share = self.loss.share(target)
        if not share:
            raise ValueError(
                "the batch has no mean loss: each of its targets is ignore_index, NaN or of a class whose weight is 0"
            )
        with self._moving:
            if self.accumulate == 1:
                return float(core.step(arrays, self.optimizer.rate(core.steps))), share
            try:
                loss = float(core.accumulate(arrays, share))
            except RuntimeException:
                if core.torn:  # some sums have the batch, others do not
                    self._drop_sums()
                raise
            self._pending, self._shares = self._pending + 1, self._shares + share
            if self._pending >= self.accumulate:  # more where a schedule gave no rate
                self.flush()
            return loss, share

    def flush(self) -> None:
        """Takes the step of what ``accumulate`` has so far. ``fit`` does so at the end of an epoch."""
        with self._moving:
            if self._pending:
                self._core.apply(self.optimizer.rate(self._core.steps), self.loss.scale(self._shares))
                self._pending, self._shares = 0, 0.0

    def _drop_sums(self) -> None:
        """What ``accumulate`` has so far is forgotten."""
        with self._moving:
            for name, array in self._core.state():
                if name.startswith("tiercel_g "):
                    array[...] = 0
            self._pending, self._shares = 0, 0.0

    def fit(
        self,
        x: Arrays | Iterable[tuple[Arrays, Any]],
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        validation: tuple[Arrays, Any] | Iterable[tuple[Arrays, Any]] | float | None = None,
        callbacks: Sequence[Callback | Callable[[Trainer, int, History], Any]] = (),
        progress: bool | None = None,
        resume: str | os.PathLike[str] | None = None,
        bucket: bool = False,
    ) -> History:
        """Trains on arrays, or (without ``y``) on an iterable of batches (x, y), whose lengths may differ. ``x`` may be a
        list of sequences [T, ...] of different lengths, as may ``y`` where the output has steps: a batch is padded to its
        longest. ``bucket``: a shuffled batch is of sequences of about one length, to pad less.
        ``validation``: (x, y), a list of batches, or the share of the samples (the last ones) that is kept for it.
        Callbacks: Callback objects, or functions that get the trainer, the number of the epoch (from 0) and the
        history after each epoch; one that returns True ends the training. ``progress``: a bar, where tqdm is there;
        by default on a terminal. ``resume``: a checkpoint of the same fit, which goes on as if it had never
        stopped. Another ``fit`` trains on: the orders of its epochs are those after the ones before. What an
        interrupted ``accumulate`` left is dropped."""
        whole("batch_size", batch_size, 1)
        whole("epochs", epochs)
        whole("seed", seed)
        validation = checked_validation(validation, epochs)
        if y is None:
            if bucket:
                raise ValueError("bucket makes batches of samples: x already is batches")
            if isinstance(validation, float):
                raise ValueError(
                    "a share for validation needs arrays x and y; with batches give it as (x, y) or a list of batches"
                )
            if isinstance(x, np.ndarray):
                raise ValueError("y is missing: x is an array, not batches (x, y)")
            if isinstance(x, str) or not isinstance(x, Iterable):
                raise ValueError(f"without y, x is an iterable of batches (x, y), not {type(x).__name__}")
            if epochs > 1 and iter(x) is x:
                raise ValueError(
                    f"an iterator serves one epoch: give what can be iterated {epochs} times, such as a list of batches"
                )
            fit = Fit(self, lambda epoch: x, {"batches": True})  # type: ignore[arg-type, return-value]
            count = len(x) if isinstance(x, Sized) else None
        else:
            inputs, target = self._feed.samples(x, y, self.loss)
            if bucket and not (shuffle and any(isinstance(a, Ragged) for a in inputs)):
                raise ValueError("bucket is for lists of sequences that are shuffled")
            if isinstance(validation, float):
                kept = round(len(target) * validation) if 0 < validation < 1 else 0
                if not 0 < kept < len(target):
                    raise ValueError(
                        f"a share of {validation} of {len(target)} samples leaves nothing to validate or to train with"
                    )
                validation = [a[-kept:] for a in inputs], target[-kept:]
                inputs, target = [a[:-kept] for a in inputs], target[:-kept]
            settings = {"samples": len(target), "batch_size": batch_size, "shuffle": shuffle, "seed": seed}
            settings |= {"bucket": True} if bucket else {}
            fit = Fit(
                self,
                lambda epoch: batches_of(
                    inputs, target, batch_size, np.random.default_rng([seed, epoch]) if shuffle else None, bucket
                ),
                settings,
            )
            count = -(-len(target) // batch_size)
        fit.add_callbacks(callbacks)
        if epochs:
            self._try_validation(validation)
        if resume is not None:
            self.load_checkpoint(resume, fit)
        else:
            self._drop_sums()
        checked = None if validation is None else validation if isinstance(validation, tuple) else (validation,)
        bar = Bar(progress, epochs, count)
        self._fit = fit
        try:
            return fit.run(epochs, checked, bar)
        finally:
            bar.close()
            self._fit = None

    def _try_validation(self, validation: Any) -> None:
        """What is wrong with these data is told before the first epoch rather than after it. An iterable may serve
        once for each epoch, so only a list is looked into."""
        if not isinstance(validation, (tuple, list)):
            return
        try:
            if isinstance(validation, tuple):
                x, y = validation
                self.evaluate([next(batches_of(*self._feed.samples(x, y, self.loss), 256, None))])
            else:
                self.evaluate(validation[:1])
        except (ValueError, Error) as e:
            raise (type(e) if isinstance(e, Error) else ValueError)(f"validation: {e}") from e

    def evaluate(
        self, x: Arrays | Iterable[tuple[Arrays, Any]], y: Any = None, batch_size: int = 256
    ) -> dict[str, float]:
        """``loss``, and ``accuracy`` where the targets are class numbers (without those that are ``ignore_index``); in
        inference mode. Arrays, or (without ``y``) batches (x, y), whatever their lengths."""
        batches: Iterable[tuple[Any, Any]]
        batches = x if y is None else batches_of(*self._feed.samples(x, y, self.loss), batch_size, None)  # type: ignore[assignment]
        whole("batch_size", batch_size, 1)
        total, shares, some, right, counted = 0.0, 0.0, False, 0, 0
        cores: dict[bool, Any] = {}
        accuracy = False
        for batch in batches:
            xs, t = pair(batch)
            arrays, t = self._feed.batch(xs, t, self.loss)
            labels = self.loss.takes_labels(t)
            if labels not in cores:
                cores[labels] = self._evaluating(t)
            loss, outputs = cores[labels].evaluate([*arrays, self._target(t, labels)])
            share, some = self.loss.share(t), True
            if share:  # else all is ignored, and the mean of nothing is NaN
                total, shares = total + loss * share, shares + share
            if labels and self.loss.name == "cross_entropy":
                counts, accuracy = self.loss.counted(t), True
                right += int(((outputs[self._feed.output].argmax(axis=1) == t) & counts).sum())
                counted += int(np.broadcast_to(counts, t.shape).sum())
        if not some:
            raise ValueError("there is nothing to evaluate: no batches")
        result = {"loss": total * self.loss.scale(shares)}
        if accuracy:
            result["accuracy"] = right / counted if counted else float("nan")
        return result

    def predict(self, x: Arrays, batch_size: int = 256) -> Any:
        """The model's outputs with the weights of now (an array where there is one). Where the first axis of every
        input and output is the batch, which has one name then, the samples go through in batches. Of a list of sequences
        (in batches of about one length) an output of steps is a list without padding, too."""
        size, given = whole("batch_size", batch_size, 1), self._feed.given(x)
        ragged = next((a for a in given if isinstance(a, Ragged)), None)
        lengths = {len(a) if a.ndim else 0 for a in given}
        n = max(lengths, default=0)
        if not self._feed.batched or len(lengths) != 1 or n <= size:
            outputs = self._run(given)
        else:
            order = np.arange(n) if ragged is None else ragged.lengths.argsort(kind="stable")
            cuts = [slice(i, i + size) if ragged is None else order[i : i + size] for i in range(0, n, size)]
            outputs = []
            for each in zip(*[self._run([a[at] for a in given]) for at in cuts], strict=True):
                if isinstance(each[0], list):
                    samples = [a for part in each for a in part]
                    outputs.append([samples[i] for i in order.argsort()])
                else:
                    whole_output = np.concatenate(each)
                    outputs.append(whole_output if ragged is None else whole_output[order.argsort()])
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, given: Sequence[Array | Ragged]) -> list[Any]:
        outputs: list[Any] = self.session.run(None, dict(zip(self.input_names, self._feed.arrays(given), strict=True)))
        ragged = next((a for a in given if isinstance(a, Ragged)), None)
        if ragged is None:
            return outputs
        return [self._feed.unpadded(a, k, ragged.lengths) for k, a in enumerate(outputs)]

    # ---- What was learnt

    @property
    def steps(self) -> int:
        return int(self._core.steps)

    @property
    def batches(self) -> int:
        """How many batches went through; without ``accumulate`` as many as steps."""
        return int(self._core.batches)

    @property
    def weights(self) -> dict[str, Array]:
        """The weights that are trained, by name. The arrays are the trainer's own: a step changes them."""
        self._handed_out = True
        return dict(self._core.state()[: self._core.num_weights])

    @property
    def session(self) -> LiveSession:
        """A session on as many threads as the trainer. It is one for all time, and each of its runs has the weights of
        when it begins, also in another thread while ``fit`` goes on: those before a step or those after it."""
        with self._lock:
            if self._session is None:
                self._session = LiveSession(self._core, self._options["threads"])
            elif self._handed_out:
                self._core.touch()
            return self._session

    def memory(self) -> dict[str, int]:
        """Bytes that a step of the shapes that came last takes: ``arena`` (intermediates), ``live_bound`` (the most of them
        that are alive at once), ``states`` (weights, statistics, moments), ``constants`` (what is not trained),
        ``packed``; and the numbers of ``instructions`` and ``barriers``."""
        return dict(self._core.memory())

    def model(self) -> bytes:
        """The model with the weights of now, as .onnx bytes: what came in, without a trace of training (LoRA is
        merged)."""
        return bytes(self._core.model(checked=True))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes that model to a new file, which then takes the name. A weight that is not finite, or too large for its
        type, is an error, and the file stays what it was."""
        check_finite(self, self._states(), path)
        replace_file(path, self._core.save)

    def save_adapter(self, path: str | os.PathLike[str]) -> None:
        """Writes what LoRA learnt, alone; ``apply_adapter(model, path)`` puts it into the model."""
        if self._lora is None:
            raise ValueError("there is no adapter: the trainer was made without LoRA")
        meta = {"forms": self._forms, "scale": self._lora.alpha / self._lora.rank}
        with self._moving:
            checkpoint.write(path, lora.KIND, meta, self._states())

    def model_state(self) -> dict[str, Array]:
        """Weights that are trained and running statistics, by name; the arrays are the trainer's own."""
        self._handed_out = True
        return self._states()

    def _states(self) -> dict[str, Array]:
        return {n: a for n, a in self._core.state() if not n.startswith(tuple(MOMENTS))}

    def load_model_state(self, state: Mapping[str, Array]) -> None:
        """Takes back a copy of ``model_state``."""
        own = self._states()
        given = {name: np.asarray(array) for name, array in state.items()}
        check_arrays(own, given, "the state")
        self._core.set_state({name: given[name] for name in own})

    # ---- Checkpoints

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """All that a training goes on with: weights, moments, running statistics, counters, and where ``fit`` stands.
        Written to a new file, which then takes the name. A state that is not finite is an error, and the file stays
        what it was. It is that between two steps: those of other threads wait until it is written."""
        with self._moving:
            resume.save(self, path)

    def load_checkpoint(self, path: str | os.PathLike[str], fit: Fit | None = None) -> None:
        """Goes back to a checkpoint of a trainer that was made the same way. Where it cannot, a CheckpointError says
        why, and nothing changes."""
        with self._moving:
            resume.load(self, path, fit)

    def _model_hash(self) -> str:
        """Of the model without what is trained."""
        if self._frame is None:
            self._frame = hashlib.sha256(self._core.frame()).hexdigest()
        return self._frame

    # ---- Inside


    def _made(self, labels: bool, **changed: Any) -> Any:
        options = {"optimizer": self.optimizer.spec(), **self._options, **changed}
        return _core.TrainingSession(
            self._data, self._folder, self.loss.spec(labels), trainable=self._trainable, **options
        )

    def _restart(self, labels: bool) -> None:
        """Before the first step: the same weights for targets of the other form."""
        self._model_hash()
        old = self._core
        if not self._forms:
            self._data = old.model()
        self._core, self._labels, self._other = self._made(labels), labels, None
        self._core.set_steps(old.steps, old.batches)
        copy_state(old, self._core)
        if not self._forms:
            self._data = b""
        if self._session is not None:
            self._session._follow(self._core)

    def _for(self, target: Array) -> Any:
        """The core that takes steps with these targets."""
        labels = self._check_form(target)
        with self._lock:
            if labels != self._labels:
                if self.batches:
                    raise ValueError(
                        f"the targets were {'class numbers' if self._labels else 'numbers'} before; these are "
                        f"{target.dtype}: a training keeps to one form (evaluate takes both)"
                    )
                self._restart(labels)
            self._guessed = False
        return self._core

    def _evaluating(self, target: Array) -> Any:
        """The core that evaluates these targets; for those of the other form than training's another one with the
        weights of now."""
        labels = self._check_form(target)
        with self._lock:
            if labels != self._labels and self._guessed and not self.batches:
                self._restart(labels)
            self._guessed = False
            if labels == self._labels:
                return self._core
            if self._other is None:
                data = self._data
                if not self._forms:
                    self._data = self._core.model()
                try:  # it takes no steps, so the cheapest way to do so will do
                    self._other = self._made(
                        labels, optimizer={"name": "sgd"}, accumulate=False, clip_norm=0.0, clip_value=0.0, groups={}
                    )
                finally:
                    self._data = data
            core, other = self._core, self._other
        with self._moving:
            copy_state(core, other)
        return other

    def _check_form(self, target: Array) -> bool:
        labels = self.loss.takes_labels(target)
        if not target.size:
            raise ValueError("an empty batch has no loss: y has no elements")
        if (
            not labels
            and self.loss.may_take_labels
            and self._feed.output_rank is not None
            and target.ndim < self._feed.output_rank
        ):
            raise ValueError(
                "cross_entropy takes class numbers, which are integers (y.astype(np.int64)), or probabilities in the "
                f"prediction's shape; y is {target.dtype}{list(target.shape)}"
            )
        self.loss.check_labels(target, self._feed.output_rank)
        self.loss.check_range(target)
        return labels

    def _target(self, y: Array, labels: bool) -> Array:
        return np.asarray(y, np.int64 if labels else self._feed.output_dtype, order="C")

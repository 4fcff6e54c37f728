"""Trainer: a model, a loss and an optimiser, fed with batches."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tiercel import _core
from tiercel.session import InferenceSession
from tiercel.training.losses import Loss
from tiercel.training.models import model_bytes
from tiercel.training.optimizers import Optimizer, optimizer_of

Array = np.ndarray[Any, Any]
Arrays = Array | Sequence[Array] | Mapping[str, Array]


class History(dict[str, list[float]]):
    """What ``fit`` measured: an epoch an entry of each list (``loss``, ``seconds``, and with validation data ``val_loss``,
    ``val_accuracy``)."""


class Trainer:
    """``model``: a path, .onnx bytes, an onnx.ModelProto or a Sequential. ``loss``: a name or a Loss; ``optimizer``: a name
    or an Optimizer. ``trainable``: "all", or patterns (fnmatch) of weights' names. ``output``: the one that the loss is of,
    by default the first. ``clip_norm``, ``clip_value``: of the gradients. ``seed``: of Dropout. ``threads``: 0 for all."""

    def __init__(
        self,
        model: Any,
        loss: str | Loss = "mse",
        optimizer: str | Optimizer = "sgd",
        trainable: str | Sequence[str] = "all",
        output: str = "",
        clip_norm: float = 0.0,
        clip_value: float = 0.0,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        self._data, self._folder = model_bytes(model)
        self.loss = Loss(loss) if isinstance(loss, str) else loss
        self.optimizer = optimizer_of(optimizer)
        self._options: dict[str, Any] = {
            "output": output,
            "clip_norm": clip_norm,
            "clip_value": clip_value,
            "seed": seed,
            "threads": threads,
        }
        self._trainable = self._names(trainable)
        info = _core.model_info(self._data)
        self.input_names: list[str] = [name for name, _, _ in info["inputs"]]
        self._dtypes = [_numpy_type(kind) for _, kind, _ in info["inputs"]]
        names = [name for name, _, _ in info["outputs"]]
        self._output = names.index(output) if output in names else 0
        self._output_dtype = _numpy_type(info["outputs"][self._output][1])
        self._core: Any = None
        self._labels: bool | None = None
        self._session: tuple[int, InferenceSession] | None = None
        if self.loss.name != "cross_entropy":  # what the targets are is known
            self._start(False)

    # ---- Steps

    def step(self, x: Arrays, y: Any) -> float:
        """One step on a batch; gives its loss. A loss that is not finite is an error, and the weights stay as they were."""
        target = np.asarray(y)
        core = self._for(target)
        return float(core.step([*self._inputs(x), self._target(target)], self.optimizer.rate(core.steps)))

    def fit(
        self,
        x: Arrays | Iterable[tuple[Arrays, Any]],
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        validation: tuple[Arrays, Any] | None = None,
        callbacks: Sequence[Callable[[Trainer, int, History], Any]] = (),
        progress: bool = False,
    ) -> History:
        """Trains on arrays, or (without ``y``) on an iterable of batches (x, y). After each epoch every callback gets the
        trainer, the number of the epoch (from 0) and the history; one that returns True ends the training. ``progress``: a
        bar, where tqdm is there."""
        history = History(loss=[], seconds=[])
        rng = np.random.default_rng(seed)
        inputs = None if y is None else self._inputs(x)  # type: ignore[arg-type]
        if inputs is not None:
            y = np.asarray(y)
            if any(len(a) != len(y) for a in inputs):
                raise ValueError(f"x and y should have one length, got {[len(a) for a in inputs]} and {len(y)}")
            if not len(y):
                raise ValueError("there is nothing to train on: x and y are empty")
        if inputs is None and epochs > 1 and iter(x) is x:
            raise ValueError(
                f"an iterator serves one epoch: give what can be iterated {epochs} times, such as a list of batches"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, not {batch_size}")
        for epoch in _bar(range(epochs), progress):
            begin, total, count = time.perf_counter(), 0.0, 0
            batches: Any = x if inputs is None else _batches(inputs, y, batch_size, rng if shuffle else None)
            for xs, t in batches:
                n = len(t)
                total += self.step(xs, t) * n
                count += n
            history["loss"].append(total / max(count, 1))
            history["seconds"].append(time.perf_counter() - begin)
            if validation is not None:
                for name, value in self.evaluate(*validation).items():
                    history.setdefault(f"val_{name}", []).append(value)
            answers = [callback(self, epoch, history) for callback in callbacks]
            if any(answer is True for answer in answers):
                break
        return history

    def evaluate(self, x: Arrays, y: Any, batch_size: int = 256) -> dict[str, float]:
        """``loss``, and ``accuracy`` where the targets are class numbers; in inference mode."""
        target, inputs = np.asarray(y), self._inputs(x)
        core = self._for(target)
        total, right, count = 0.0, 0, 0
        for xs, t in _batches(inputs, target, batch_size, None):
            loss, outputs = core.evaluate([*self._inputs(xs), self._target(t)])
            total += loss * len(t)
            count += len(t)
            if self._labels:
                right += int((outputs[self._output].argmax(axis=1) == t).sum())
        result = {"loss": total / max(count, 1)}
        if self._labels:
            result["accuracy"] = right / max(int(np.prod(target.shape)), 1)
        return result

    def predict(self, x: Arrays) -> Any:
        """The model's outputs with the weights of now (an array where there is one)."""
        outputs = self.session.run(None, dict(zip(self.input_names, self._inputs(x), strict=True)))
        return outputs[0] if len(outputs) == 1 else outputs

    # ---- What was learnt

    @property
    def steps(self) -> int:
        return 0 if self._core is None else int(self._core.steps)

    @property
    def weights(self) -> dict[str, Array]:
        """The weights that are trained, by name. The arrays are the trainer's own: a step changes them."""
        core = self._ready()
        return dict(core.state()[: core.num_weights])

    @property
    def session(self) -> InferenceSession:
        """A session with the weights of now."""
        if self._session is None or self._session[0] != self.steps:
            self._session = self.steps, InferenceSession(self.model())
        return self._session[1]

    def model(self) -> bytes:
        """The model with the weights of now, as .onnx bytes: what came in, without a trace of training."""
        return self._data if self._core is None else bytes(self._core.model())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes that model to a new file, which then takes the name."""
        part = f"{os.fspath(path)}.part"
        self._ready().save(part)
        os.replace(part, path)

    # ---- Inside

    def _names(self, trainable: str | Sequence[str]) -> list[str]:
        if trainable == "all":
            return []
        known = _core.trainable_weights(self._data, self._folder)
        patterns = [trainable] if isinstance(trainable, str) else list(trainable)
        names = [n for n in known if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
        for p in patterns:
            if not fnmatch.filter(known, p):
                raise ValueError(
                    f"no weight matches {p!r}; there are: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}"
                )
        return names

    def _start(self, labels: bool) -> None:
        spec = self.loss.spec(labels)
        self._core = _core.TrainingSession(
            self._data, self._folder, spec, self.optimizer.spec(), trainable=self._trainable, **self._options
        )
        self._labels = labels

    def _ready(self) -> Any:
        if self._core is None:
            self._start(True)
        return self._core

    def _for(self, target: Array) -> Any:
        labels = self.loss.takes_labels(target)
        if self._core is None:
            self._start(labels)
        elif labels != self._labels:
            raise ValueError(
                f"the targets were {'class numbers' if self._labels else 'numbers'} before; these are {target.dtype}"
            )
        return self._core

    def _target(self, y: Array) -> Array:
        return np.ascontiguousarray(y, np.int64 if self._labels else self._output_dtype)

    def _inputs(self, x: Arrays) -> list[Array]:
        if isinstance(x, Mapping):
            missing = [n for n in self.input_names if n not in x]
            if missing:
                raise ValueError(f"inputs are missing: {', '.join(missing)}")
            arrays = [x[n] for n in self.input_names]
        elif isinstance(x, np.ndarray) or (len(self.input_names) == 1 and not _is_list_of_arrays(x)):
            arrays = [np.asarray(x)]
        else:
            arrays = list(x)
        if len(arrays) != len(self.input_names):
            raise ValueError(
                f"the model takes {len(self.input_names)} inputs ({', '.join(self.input_names)}), got {len(arrays)}"
            )
        return [np.ascontiguousarray(a, t) for a, t in zip(arrays, self._dtypes, strict=True)]


def _is_list_of_arrays(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and len(x) == 1 and isinstance(x[0], np.ndarray)


def _numpy_type(kind: str) -> np.dtype[Any]:
    name = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def _batches(
    inputs: Sequence[Array], y: Array, size: int, rng: np.random.Generator | None
) -> Iterable[tuple[list[Array], Array]]:
    order = None if rng is None else rng.permutation(len(y))
    for i in range(0, len(y), size):
        at = slice(i, i + size) if order is None else order[i : i + size]
        yield [a[at] for a in inputs], y[at]


def _bar(epochs: range, wanted: bool) -> Iterable[int]:
    if wanted:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return epochs
        return tqdm(epochs, unit="epoch")  # type: ignore[no-any-return]
    return epochs

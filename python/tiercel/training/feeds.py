"""What a Trainer is given, as the engine takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tiercel.errors import InvalidArgument
from tiercel.training.checks import numbers
from tiercel.training.losses import Loss, ctc_targets
from tiercel.training.ragged import Ragged, is_list

Array = np.ndarray[Any, Any]


def model_input(x: Any, dtype: np.dtype[Any], name: str) -> Array:
    a = np.asarray(x)
    if a.dtype == dtype or dtype.kind not in "biuf":
        return np.asarray(a, dtype, order="C")
    numbers(a, f"input {name!r}")
    if dtype.kind in "iu" and a.dtype.kind == "f" and (a != np.floor(a)).any():
        raise ValueError(f"input {name!r} takes {dtype}: {a.dtype} with fractions or NaN would lose them")
    return np.asarray(a, dtype, order="C")


def is_list_of_arrays(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and len(x) == 1 and isinstance(x[0], (np.ndarray, Ragged))


# Inputs that say how long the sequences of a batch are, where the user names none.
_LENGTHS = (
    "lengths", "length", "seq_lens", "seq_lengths", "sequence_lens", "sequence_length", "sequence_lengths", "input_lengths",
    "x_lengths",
)  # fmt: skip
_MASKS = ("attention_mask", "mask")


class Feed:
    """Between what a Trainer is given and the model: inputs by name, lists of sequences, targets. ``lengths``: the
    input that says how long sequences are ([batch], or a mask [batch, T]); "": found by its name."""

    def __init__(self, info: Mapping[str, Any], output: str, lengths: str) -> None:
        self.names: list[str] = [name for name, _, _ in info["inputs"]]
        self.dtypes = [numpy_type(kind) for _, kind, _ in info["inputs"]]
        self.shapes: list[Sequence[Any] | None] = [shape for _, _, shape in info["inputs"]]
        names = [name for name, _, _ in info["outputs"]]
        if not names:
            raise ValueError("the model has no output")
        self.output = names.index(output) if output in names else 0
        self.output_dtype = numpy_type(info["outputs"][self.output][1])
        if self.output_dtype.name in ("float16", "bfloat16"):  # losses of such are computed in float
            self.output_dtype = np.dtype(np.float32)
        outputs: list[Sequence[Any] | None] = [shape for _, _, shape in info["outputs"]]
        extents = outputs[self.output]
        self.output_rank = None if extents is None else len(extents)
        classes = extents[1] if extents is not None and len(extents) > 1 else None
        self.classes: int | None = classes if isinstance(classes, int) and classes > 0 else None  # of cross_entropy
        first = {shape[0] if shape else None for shape in (*self.shapes, *outputs)}
        self.batched = len(first) == 1 and isinstance(next(iter(first)), str)  # is the first axis of all the batch?
        self.lengths = self._find_lengths(lengths)  # the number of that input; -1: none
        self.data = [i for i in range(len(self.names)) if i != self.lengths]
        self.timed = next((i for i in self.data if self._rank(i) >= 2), -1)  # the first input of sequences
        self.axes = [self._time_axis(shape) for shape in outputs]  # of each output, along which it has steps

    def _rank(self, i: int) -> int:
        shape = self.shapes[i]
        return -1 if shape is None else len(shape)

    def _find_lengths(self, name: str) -> int:
        if name:
            if name not in self.names:
                raise ValueError(f"lengths names {name!r}, which is no input; there are: {', '.join(self.names)}")
            if self._rank(self.names.index(name)) not in (1, 2):
                raise ValueError(f"the input {name!r} is neither lengths [batch] nor a mask [batch, T]")
            return self.names.index(name)
        for i, n in enumerate(self.names if len(self.names) > 1 else []):
            whole = self.dtypes[i].kind in "iu" and n in _LENGTHS
            if (self._rank(i) == 1 and whole) or (self._rank(i) == 2 and n in _MASKS):
                return i
        return -1

    def _extent(self, i: int) -> Any:
        """T of input i, as the model declares it."""
        shape = self.shapes[i]
        return shape[1] if shape is not None and len(shape) > 1 else None

    def _time_axis(self, shape: Sequence[Any] | None) -> int | None:
        extent = self._extent(self.timed) if self.timed >= 0 else None
        if shape is None or extent is None:
            return None
        return next((axis for axis, n in enumerate(shape) if axis and n == extent), None)

    @property
    def pads(self) -> bool:
        """Does the model know of padding, and has the output that the loss is of steps?"""
        return self.lengths >= 0 and self.axes[self.output] is not None

    # ---- Inputs

    def given(self, x: Any) -> list[Array | Ragged]:
        """By input. Lengths that were not given are those of the sequences, or all of an array."""
        if isinstance(x, Mapping):
            missing = [self.names[i] for i in self.data if self.names[i] not in x]
            if missing:
                raise ValueError(f"inputs are missing: {', '.join(missing)}")
            parts = [x.get(n) for n in self.names]
        else:
            one = isinstance(x, (np.ndarray, Ragged)) or (len(self.names) == 1 and not is_list_of_arrays(x))
            one |= self._is_sequences(x) or (len(self.data) == 1 and not is_list(x))
            parts = [x] if one else list(x)
            if len(parts) == len(self.names) - 1 and self.lengths >= 0:
                parts.insert(self.lengths, None)
        if len(parts) != len(self.names):
            raise ValueError(f"the model takes {len(self.names)} inputs ({', '.join(self.names)}), got {len(parts)}")
        result: list[Any] = list(parts)
        for i in self.data:
            if self._is_sequences(parts[i], i):
                result[i] = self._sequences(parts[i], i)
            elif not isinstance(parts[i], Ragged):
                try:
                    result[i] = np.asarray(parts[i])
                except ValueError as e:
                    raise ValueError(f"input {self.names[i]!r} is no array, and has no axis of steps: {e}") from e
        long = [a for a in result if isinstance(a, Ragged)]
        first: dict[Any, Ragged] = {}
        for i in self.data:
            if isinstance(a := result[i], Ragged):
                if len(a) != len(long[0]):
                    raise ValueError(f"{a.what} has {len(a)} samples, {long[0].what} {len(long[0])}")
                other = first.setdefault(self._extent(i), a)  # source and target of a translation may differ
                a.same_lengths(other.lengths, other.what)
        if self.lengths >= 0:
            own = result[self.lengths]
            if own is None:
                result[self.lengths] = self._all_steps(long[0] if long else result[self.timed])
            elif is_list(own) and self._rank(self.lengths) == 2 and long:
                result[self.lengths] = Ragged(own, f"input {self.names[self.lengths]!r}")
            elif not isinstance(own, Ragged):
                own = result[self.lengths] = np.asarray(own)
                if long and own.shape == (len(long[0]),):
                    long[0].same_lengths(own, repr(self.names[self.lengths]))
        return result

    def _is_sequences(self, x: Any, i: int = -1) -> bool:
        """Is x a list of samples of input i, by default of the only one beside the lengths, whose lengths may differ?"""
        if i < 0:
            if len(self.data) != 1:
                return False
            i = self.data[0]
            both = len(self.names) == 2 and is_list(x) and len(x) == 2
            if both and _ndim(x[0]) == self._rank(i) and _ndim(x[1]) == self._rank(self.lengths):
                return False  # the inputs
        if not is_list(x) or any(isinstance(a, Ragged) for a in x) or (not len(x) and self.lengths < 0):
            return False
        if self.lengths >= 0:
            return self._rank(i) >= 2
        if isinstance(self._extent(i), int):
            return False
        shapes = {np.shape(a) if isinstance(a, np.ndarray) else None for a in x}
        if len(shapes) > 1 or shapes == {None}:
            try:
                shapes = {np.asarray(a).shape for a in x}
            except ValueError:
                return False
        return len(shapes) > 1 and all(shapes)

    def _sequences(self, x: Any, i: int) -> Ragged:
        r = Ragged(x, f"input {self.names[i]!r}")
        if self._rank(i) >= 0 and r.ndim != self._rank(i):
            raise ValueError(
                f"{r.what} takes {list(self.shapes[i] or [])}, so a sample has rank {self._rank(i) - 1}, not the shape "
                f"{list(r.items[0].shape)}"
            )
        return r

    def _all_steps(self, a: Any) -> Array | Ragged:
        if self._rank(self.lengths) == 1:
            if isinstance(a, Ragged):
                return a.lengths
            return np.full(len(a) if a.ndim else 0, a.shape[1] if a.ndim > 1 else 0)
        if isinstance(a, Ragged):
            return Ragged([np.ones(n, np.int64) for n in a.lengths], "the mask")
        return np.ones(a.shape[:2], np.int64)

    def arrays(self, given: Sequence[Array | Ragged]) -> list[Array]:
        """As the model takes them."""
        padded = [a.padded(self._steps(i, a)) if isinstance(a, Ragged) else a for i, a in enumerate(given)]
        if self.lengths >= 0 and self.timed >= 0 and self._rank(self.lengths) == 1:
            self._check_lengths(padded[self.lengths], padded[self.timed])
        return [model_input(a, t, n) for a, t, n in zip(padded, self.dtypes, self.names, strict=True)]

    def _steps(self, i: int, a: Ragged) -> int:
        """What input i is padded to; a mask as the sequences are."""
        extent = self._extent(self.timed if i == self.lengths else i)
        return extent if isinstance(extent, int) else a.shape[1]

    def _check_lengths(self, lengths: Array, x: Array) -> None:
        name = self.names[self.lengths]
        if x.ndim < 2 or lengths.ndim != 1 or lengths.dtype.kind not in "iuf":
            return  # the engine says what is wrong
        if len(lengths) != len(x):
            raise ValueError(f"there are {len(lengths)} {name!r}, but {len(x)} samples of {self.names[self.timed]!r}")
        wrong = np.flatnonzero(~((lengths >= 1) & (lengths <= x.shape[1])))
        if len(wrong):
            raise ValueError(
                f"{name!r} of sample {wrong[0]} is {lengths[wrong[0]]}, but {self.names[self.timed]!r} has "
                f"{x.shape[1]} steps: from 1 to that many count"
            )

    # ---- Targets

    def targets(self, y: Any, given: Sequence[Array | Ragged], loss: Loss) -> Array | Ragged:
        """As an array, or a sequence for each sample where the output has steps."""
        if isinstance(y, Ragged):
            return y
        long = next((a for a in given if isinstance(a, Ragged)), None)
        axis = self.axes[self.output]
        if loss.name == "ctc":
            if long is not None and axis is not None and not isinstance(y, (tuple, np.ndarray)):
                return ctc_targets(y, long.lengths)
            return loss.targets(y)
        if is_list(y) and len(y) and (long is not None or self.lengths >= 0):
            if _ndim(y[0]) and axis is not None:
                return self._targets_of_steps(y, given, loss)
            if len({len(a) if _ndim(a) else 0 for a in y}) > 1:
                raise ValueError(
                    "y is of different lengths, but the model's output has no axis of steps: it takes one target a sample"
                )
        target = loss.targets(y)
        numbers(target, "y")
        return target

    def _targets_of_steps(self, y: Any, given: Sequence[Array | Ragged], loss: Loss) -> Ragged:
        target = Ragged(y, "y")
        numbers(target.items[0], "y")
        long = next((a for a in given if isinstance(a, Ragged)), None)
        known, what = (long.lengths, long.what) if long is not None else (given[self.lengths], repr(self.names[self.lengths]))
        if isinstance(known, np.ndarray) and known.shape == (len(target),):
            target.same_lengths(known, what)
        for i, a in enumerate(target.items if "ignore_nan" in loss.added and target.dtype.kind == "f" else []):
            if np.isnan(a).any():
                raise ValueError(f"y: sample {i} holds NaN (Loss({loss.name!r}, ignore_nan=True) passes over it)")
        return target

    def batch(self, x: Any, y: Any, loss: Loss) -> tuple[list[Array], Array]:
        """What a step takes: inputs, padded, and targets."""
        given = self.given(x)
        target = self.targets(y, given, loss)
        arrays = self.arrays(given)
        return arrays, self._padded(target, arrays, loss) if isinstance(target, Ragged) else target

    def _padded(self, target: Ragged, arrays: Sequence[Array], loss: Loss) -> Array:
        steps = arrays[self.timed].shape[1]
        labels, axis = loss.takes_labels(target), self.axes[self.output]
        if labels and loss.name == "cross_entropy" and self.output_rank == 3 and axis == 1:
            raise ValueError(
                "cross_entropy takes scores [batch, classes, T], but the output has its steps before its classes: end the "
                "model with a transpose, Permute(2, 1)"
            )
        fill = loss.padding(labels)
        if (target.lengths < steps).any() and fill is None:
            raise ValueError(
                f"the loss {loss.name} of {target.dtype} targets has none that counts for nothing, which padding needs: "
                f"give Loss({loss.name!r}, {'ignore_index=-100' if labels else 'ignore_nan=True'})"
            )
        a = target.padded(steps, 0 if fill is None else fill)
        return a if axis is None or a.ndim != self.output_rank else np.moveaxis(a, 1, axis)

    def samples(self, x: Any, y: Any, loss: Loss) -> tuple[list[Array | Ragged], Array | Ragged]:
        """Inputs and targets, sample by sample."""
        given = self.given(x)
        target = self.targets(y, given, loss)
        each = zip(given, self.dtypes, self.names, strict=True)
        given = [a if isinstance(a, Ragged) else model_input(a, t, n) for a, t, n in each]
        if not target.ndim or any(not a.ndim or len(a) != len(target) for a in given):
            raise ValueError(
                f"x and y should have one length, got shapes {[list(a.shape) for a in given]} and {list(target.shape)}"
            )
        if not len(target):
            raise ValueError("there is nothing to work on: x and y are empty")
        if not any(isinstance(a, Ragged) for a in given):
            self.arrays(given)
        for part in target.items if isinstance(target, Ragged) else [target]:
            loss.check_range(part)
        self._check_classes(target, loss)
        return given, target

    def _check_classes(self, target: Array | Ragged, loss: Loss) -> None:
        """A class number that is none is told before the first step rather than at its own."""
        if self.classes is None or loss.name != "cross_entropy" or not loss.takes_labels(target):
            return
        for i, a in enumerate(target.items if isinstance(target, Ragged) else [target]):
            wrong = loss.counted(a) & ((a < 0) | (a >= self.classes))
            if wrong.any():
                at = np.argwhere(wrong)[0]
                sample, hint = i if isinstance(target, Ragged) else at[0], ""
                if a[tuple(at)] < 0:
                    hint = f' (Loss("cross_entropy", ignore_index={a[tuple(at)]}) passes over it)'
                raise InvalidArgument(
                    f"y: the target {a[tuple(at)]} is outside [0, {self.classes - 1}], at sample {sample}{hint}"
                )

    def unpadded(self, output: Array, k: int, lengths: Array) -> Any:
        """Output number k of sequences: a list where it has steps."""
        axis = self.axes[k]
        if axis is None:
            return output
        return [np.take(row, np.arange(n), axis - 1) for row, n in zip(output, lengths, strict=True)]


def _ndim(a: Any) -> int:
    if isinstance(a, Ragged):
        return a.ndim
    try:
        return np.ndim(a)
    except ValueError:  # lists of different lengths
        return 1


def recompute_options(given: str | int | Sequence[str] | None) -> dict[str, Any]:
    if given is None or given == "none":
        return {"recompute_cheap": given is None}
    if isinstance(given, str):
        if given != "sqrt":
            raise ValueError(
                f'recompute is "sqrt", "none", a number of segments or a list of patterns of kept values, not {given!r}'
            )
        return {"segments": -1}
    if isinstance(given, (int, np.integer)):
        if isinstance(given, bool) or given < 2:
            raise ValueError(f"recompute takes at least 2 segments, not {given}")
        return {"segments": min(int(given), 1 << 20)}
    keep = list(given)
    if not keep or not all(isinstance(p, str) for p in keep):
        raise ValueError(f"recompute: patterns of kept values are a list of names that is not empty, not {given!r}")
    return {"keep": keep}


def numpy_type(kind: str) -> np.dtype[Any]:
    name = kind.removeprefix("tensor(").removesuffix(")")
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as e:
            raise ImportError("the model has inputs or outputs of bfloat16, which numpy lacks: pip install ml_dtypes") from e
        own: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return own
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))

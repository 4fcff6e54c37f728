"""Low-rank adapters: a product of two small matrices beside each large one that stays."""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tiercel import _core, errors
from tiercel.training import checkpoint
from tiercel.training.checks import whole
from tiercel.training.models import model_bytes

Array = np.ndarray[Any, Any]
KIND = "LoRA adapter of tiercel"


class LoRA:
    """Trains weights W as W + alpha / rank A B. ``targets``: patterns (fnmatch) of names; by default all weights of
    MatMul and Gemm (those of convolutions of one group can be named). ``trainable``: patterns of weights that are
    trained as they are, beside the adapters."""

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        targets: str | Sequence[str] | None = None,
        trainable: str | Sequence[str] = (),
    ) -> None:
        self.rank = whole("the rank of an adapter", rank, 1)
        number = isinstance(alpha, (int, float, np.integer, np.floating)) and not isinstance(alpha, bool)
        if alpha is not None and not (number and math.isfinite(alpha)):
            raise ValueError(f"the alpha of an adapter is a finite number, not {alpha!r}")
        self.alpha = float(self.rank if alpha is None else alpha)
        self.targets = None if targets is None else [targets] if isinstance(targets, str) else list(targets)
        if self.targets is not None and not (self.targets and all(isinstance(p, str) for p in self.targets)):
            raise ValueError(
                f"the targets of LoRA are patterns of names, at least one, not {targets!r}; without targets all weights "
                "of MatMul and Gemm have adapters"
            )
        self.trainable = trainable if isinstance(trainable, str) else list(trainable)

    def forms(self, data: bytes, folder: str) -> dict[str, str]:
        """The weights that get adapters, and how they multiply."""
        known = dict(_core.adaptable_weights(data, folder))
        if self.targets is None:
            chosen = {n: form for n, form in known.items() if form != "conv"}
            if not chosen:
                raise ValueError("the model has no weights of MatMul or Gemm; convolutions can be named in targets")
            return chosen
        for p in self.targets:
            if not fnmatch.filter(known, p):
                raise ValueError(
                    f"LoRA: no weight that can have an adapter matches {p!r}; there are: {_some(list(known))}"
                )
        return {n: form for n, form in known.items() if any(fnmatch.fnmatchcase(n, p) for p in self.targets)}


def begin(arrays: Mapping[str, Array], names: Sequence[str], seed: int) -> None:
    """The first factors are random, in place; the second ones zeros, so that the model is as it was."""
    rng = np.random.default_rng(seed)
    for name in names:
        a = arrays[f"{name}.lora_a"]
        limit = np.sqrt(a.size / min(a.shape[0], a.shape[-1]) if a.ndim == 2 else a.size / a.shape[0]) ** -1
        a[...] = rng.uniform(-limit, limit, a.shape)


def apply_adapter(model: Any, path: str | os.PathLike[str]) -> bytes:
    """The model (a path, .onnx bytes, ...) with what ``Trainer.save_adapter`` wrote in its weights, as .onnx bytes."""
    data, folder = model_bytes(model)
    meta, arrays = checkpoint.read(path, KIND)
    known = dict(_core.adaptable_weights(data, folder))
    for name, form in meta["forms"].items():
        if known.get(name) != form:
            raise checkpoint.CheckpointError(
                f"{os.fspath(path)} is of another model: this one has no such weight {name!r}"
            )
    return bytes(_core.with_weights(data, folder, changed_weights(data, folder, meta["forms"], meta["scale"], arrays)))


def changed_weights(
    data: bytes, folder: str, forms: Mapping[str, str], scale: float, arrays: Mapping[str, Array]
) -> dict[str, Array]:
    """All that differs from the model: merged weights, and what was trained beside."""
    base = _core.weights(data, folder, list(forms))
    factors = {f"{n}.lora_{k}" for n in forms for k in "ab"}
    result = {n: a for n, a in arrays.items() if n not in factors}
    for name, form in forms.items():
        a, b = arrays[f"{name}.lora_a"], arrays[f"{name}.lora_b"]
        if base[name].dtype.kind == "u":  # the bits of a type that numpy lacks
            raise ImportError(f"the weight {name!r} is of bfloat16, which numpy lacks: pip install ml_dtypes")
        try:
            result[name] = _core.merge_adapter(arrays.get(name, base[name]), form, a, b, scale)
        except (ValueError, errors.InvalidArgument) as e:
            raise checkpoint.CheckpointError(f"the adapter of {name!r} does not fit the weight: {e}") from e
        if np.isinf(result[name]).any() and np.isfinite(base[name]).all():
            raise checkpoint.CheckpointError(
                f"the weight {name!r} with its adapter is beyond what {base[name].dtype}, its type in the model, can hold"
            )
    return result


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")

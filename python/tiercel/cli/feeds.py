"""Inputs of a model from the command line: files, or random numbers of the declared shapes."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiercel import _core

MOST = 1 << 40  # elements of a random input

Signature = list[tuple[str, str, "list[int | str | None] | None"]]

_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
    "complex64": "complex64", "complex128": "complex128", "string": "object",
}  # fmt: skip


class UsageError(Exception):
    """Something in the arguments is wrong; the message says what and what would be right."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL and the options that say what goes into it."""
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument(
        "--input", action="append", default=[], metavar="FILE|NAME=FILE|random",
        help="an .npy file for the only input or, with NAME=, for that one; an .npz file with arrays named like the inputs; "
        "'random' for all that no file is given for (the default). May be given again.",
    )  # fmt: skip
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=N", help="extent of a symbolic dimension (1 by default)"
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=2x3x4",
        help="shape of a random input, where it is not fixed",
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of random inputs (default 0)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=_threads, default=0, metavar="N", help="of a run (default: all processors)")


def output_file(text: str) -> str:
    """A file to write when the work is done; that there is no such folder is known before."""
    folder = Path(text).parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {folder}")
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    return text


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def _threads(text: str) -> int:
    try:
        n = int(text)
    except ValueError:
        n = 0
    if n < 1:
        raise argparse.ArgumentTypeError(f"expected a number of threads, got {text!r}")
    return n


def model_info(path: str) -> dict[str, Any]:
    """What the file holds, whether or not it can be run."""
    info: dict[str, Any] = _core.model_info(path)
    return info


def dimensions(args: argparse.Namespace, inputs: Signature) -> dict[str, int]:
    """--dim as a dict."""
    dims = {}
    symbols = sorted({d for _, _, extents in inputs for d in extents or () if isinstance(d, str)})
    for text in args.dim:
        name, _, value = text.rpartition("=")
        if not name or not value.isdecimal():
            raise UsageError(f"--dim {text}: expected NAME=N, such as --dim batch=1")
        if name not in symbols:
            raise UsageError(
                f"--dim {text}: the inputs have no dimension {name!r}; they have {', '.join(symbols) or 'none'}"
            )
        dims[name] = int(value)
    return dims


def _shapes(args: argparse.Namespace, inputs: Signature) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in args.shape:
        name, _, value = text.rpartition("=")
        parts = [p for p in re.split(r"[x,]", value) if p]
        if not name or not all(p.isdecimal() for p in parts):
            raise UsageError(f"--shape {text}: expected NAME=EXTENTS, such as --shape image=1x3x224x224")
        _known(name, inputs, f"--shape {text}")
        shapes[name] = tuple(int(p) for p in parts)
    return shapes


def _known(name: str, inputs: Signature, what: str) -> None:
    names = [i[0] for i in inputs]
    if name not in names:
        raise UsageError(f"{what}: the model has no input {name!r}; it has {', '.join(names) or 'none'}")


def _load(path: str, what: str) -> Any:
    if not Path(path).is_file():
        raise UsageError(f"{what}: there is no file {path}")
    try:
        loaded = np.load(path, allow_pickle=False)
    except Exception as e:
        raise UsageError(f"{what}: {path} cannot be read as .npy or .npz: {e}") from e
    return loaded


def random_input(
    name: str, kind: str, dims: Sequence[int | str | None] | None, extents: dict[str, int],
    shape: tuple[int, ...] | None, rng: np.random.Generator,
) -> Any:  # fmt: skip
    """An array of the input's type: normal numbers; 0 or 1 for integers, which then are valid indices and masks."""
    found = re.fullmatch(r"(?:optional\()?tensor\((\w+)\)+", kind)
    if not found or found[1] not in _DTYPES:
        raise UsageError(f"input {name!r} is a {kind}: give it with --input {name}=FILE.npy, there are no random ones")
    if shape is None:
        if dims is None:
            raise UsageError(f"the rank of input {name!r} is not known: give --shape {name}=EXTENTS")
        shape = tuple(d if isinstance(d, int) else extents.get(str(d), 1) for d in dims)
    dtype = np.dtype(_DTYPES[found[1]])
    if math.prod(shape) > MOST:
        raise UsageError(f"input {name!r}: a random array of shape {list(shape)} is too large")
    if dtype.kind in "fc":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, "a", dtype)
    return np.asarray(rng.integers(0, 2, shape)).astype(dtype)


def feeds(args: argparse.Namespace, inputs: Signature) -> dict[str, Any]:
    """name -> array for every input of the model."""
    given: dict[str, Any] = {}
    for text in args.input:
        if text == "random":
            continue
        what = f"--input {text}"
        name, equals, path = text.partition("=")
        # A path may hold "=" too; a name that the model has wins.
        if not equals or (name not in [i[0] for i in inputs] and Path(text).is_file()):
            name, path = "", text
        if path == "random":
            _known(name, inputs, what)
            continue
        loaded = _load(path, what)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            if name:
                _known(name, inputs, what)
                if len(loaded.files) != 1:
                    raise UsageError(
                        f"{what}: {path} holds {len(loaded.files)} arrays; leave {name}= out to match them by name"
                    )
                given[name] = loaded[loaded.files[0]]
            else:
                for key in loaded.files:
                    _known(key, inputs, what)
                    given[key] = loaded[key]
            continue
        if not name:
            left = [i[0] for i in inputs if i[0] not in given]
            if len(left) != 1:
                raise UsageError(
                    f"{what}: the model has inputs {', '.join(i[0] for i in inputs)}: say which with NAME={path}"
                )
            name = left[0]
        _known(name, inputs, what)
        given[name] = loaded
    extents, shapes, rng = dimensions(args, inputs), _shapes(args, inputs), np.random.default_rng(args.seed)
    for name in shapes:
        if name in given:
            raise UsageError(f"--shape {name}=...: that input comes from a file")
    for name, kind, dims in inputs:
        if name not in given:
            given[name] = random_input(name, kind, dims, extents, shapes.get(name), rng)
    return given

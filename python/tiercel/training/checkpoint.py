"""Files of arrays and plain data that are whole or not there: checkpoints and adapters."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tiercel.training.checks import replace_file

Array = np.ndarray[Any, Any]


class CheckpointError(ValueError):
    """A file that cannot be read, or that belongs to something else, or a state that is not worth one. Nothing was
    changed."""


def write(path: str | os.PathLike[str], kind: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Writes a new file, which takes the name when it is on the disk. ``meta`` may hold arrays anywhere in its lists
    and dicts."""
    stored = [np.asarray(a) for a in arrays.values()]
    text = json.dumps({"kind": kind, "names": list(arrays), "meta": _pack(meta, stored)})

    def save(part: str) -> None:
        with open(part, "wb") as file:
            content = {"meta": np.frombuffer(text.encode(), np.uint8), **{str(i): a for i, a in enumerate(stored)}}
            np.savez(file, **content)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())

    replace_file(path, save)


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """What ``write`` wrote."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise CheckpointError(f"{os.fspath(path)} is truncated, damaged or no {kind}: it is no whole archive")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as data:
                content = json.loads(data["meta"].tobytes())
                stored = [data[str(i)] for i in range(len(data.files) - 1)]
            names, found = content["names"], content["kind"]
            meta = _unpack(content["meta"], stored)
        except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, IndexError, TypeError, EOFError, OSError) as e:
            raise CheckpointError(f"{os.fspath(path)} is truncated, damaged or no {kind}: {e}") from e
    if found != kind:
        raise CheckpointError(f"{os.fspath(path)} is a {found}, not a {kind}")
    return meta, dict(zip(names, stored, strict=False))


def _pack(value: Any, stored: list[Array]) -> Any:
    if isinstance(value, np.ndarray):
        stored.append(value)
        return {"__array__": len(stored) - 1}
    if isinstance(value, Mapping):
        return {k: _pack(v, stored) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(v, stored) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpack(value: Any, stored: list[Array]) -> Any:
    if isinstance(value, dict):
        return stored[value["__array__"]] if "__array__" in value else {k: _unpack(v, stored) for k, v in value.items()}
    return [_unpack(v, stored) for v in value] if isinstance(value, list) else value

"""Trains a model on a CSV or NPZ file and writes the result as ONNX.

An NPZ file holds arrays named like the model's inputs (for one input also x) and the target (y, target or labels). A
CSV file holds a sample a row: numbers, the target in the last column or in the one that --target names; a first row
of names may stand above.
"""

from __future__ import annotations

import argparse
import csv
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tiercel import _core
from tiercel.cli import feeds, train_options
from tiercel.cli.text import duration

_TARGETS = ("y", "target", "labels")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument("--data", required=True, metavar="FILE", help="a .csv or .npz file")
    parser.add_argument("--target", default="", metavar="NAME", help="column of a CSV file or array of an NPZ file")
    parser.add_argument(
        "--output",
        type=feeds.output_file,
        metavar="FILE",
        help="the trained model (default: MODEL with -trained before .onnx)",
    )
    parser.add_argument(
        "--loss", default="", metavar="NAME", help="cross_entropy where the targets are integers, else mse"
    )
    whole = train_options.whole
    parser.add_argument("--epochs", type=whole(0), default=10, metavar="N", help="default 10")
    parser.add_argument("--batch-size", type=whole(1), default=32, metavar="N", help="default 32")
    parser.add_argument("--accumulate", type=whole(1), default=1, metavar="N", help="batches for one step (default 1)")
    parser.add_argument(
        "--validation",
        type=train_options.number,
        default=0.1,
        metavar="X",
        help="share of the samples, the last ones (default 0.1; 0: none)",
    )
    parser.add_argument(
        "--patience",
        type=whole(0),
        default=0,
        metavar="N",
        help="early stopping: end after so many epochs without a better loss, with the weights of the best (default 0: no)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of samples, Dropout and LoRA")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="saved after each epoch; where it is there, the training goes on from it as if it had never stopped",
    )
    parser.add_argument("--no-resume", action="store_true", help="begin anew, and write over the checkpoint")
    parser.add_argument("--tensorboard", metavar="DIR", help="event files (needs tensorboardX)")
    feeds.add_threads(parser)
    train_options.add_weights(parser)
    train_options.add_optimizer(parser)
    train_options.add_rate(parser)


def _numbers(rows: list[list[str]], path: str, first: int) -> Any:
    table = np.empty((len(rows), len(rows[0])), np.float64)
    for i, row in enumerate(rows):
        if len(row) != table.shape[1]:
            raise feeds.UsageError(f"{path}, row {first + i}: {len(row)} columns, the first row has {table.shape[1]}")
        for j, cell in enumerate(row):
            try:
                table[i, j] = float(cell)
            except ValueError:
                raise feeds.UsageError(f"{path}, row {first + i}, column {j + 1}: {cell!r} is not a number") from None
    return table


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_csv(path: str, target: str) -> tuple[Any, Any]:
    """Features [n, columns] and the target [n]; integers where all its values are."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark of the encoding first
            rows = [row for row in csv.reader(file) if row]
    except UnicodeDecodeError as e:
        raise feeds.UsageError(f"{path} is no CSV file in UTF-8: {e.reason} at byte {e.start}") from e
    except csv.Error as e:
        raise feeds.UsageError(f"{path} is no CSV file: {e}") from e
    if not rows:
        raise feeds.UsageError(f"{path} is empty")
    names = None if all(map(_is_number, rows[0])) else [cell.strip() for cell in rows.pop(0)]
    if not rows:
        raise feeds.UsageError(f"{path} holds names of columns and no sample")
    if target and (names is None or target not in names):
        raise feeds.UsageError(
            f"{path} has no column {target!r}; there are: {', '.join(names) if names else 'none with names'}"
        )
    table = _numbers(rows, path, 1 if names is None else 2)
    at = names.index(target) if names and target else table.shape[1] - 1
    y = table[:, at]
    big = ~(np.abs(y) < 2**53)  # NaN too
    rest = y[~big]
    if big.any() and (rest == np.round(rest)).all() and not np.isnan(y).all():
        i = int(big.argmax())
        raise feeds.UsageError(
            f"{path}, row {i + (1 if names is None else 2)}, column {at + 1}: the target {y[i]:g} is no class number (as the "
            "others are) and no number to learn"
        )
    return np.delete(table, at, axis=1), y.astype(np.int64) if (y == np.round(y)).all() else y


def read_npz(path: str, target: str, inputs: list[str]) -> tuple[dict[str, Any], Any]:
    try:
        with open(path, "rb") as file:  # NumPy leaves a damaged one open
            data = np.load(file, allow_pickle=False)
            if isinstance(data, np.ndarray):
                raise ValueError("it holds one array without a name, as .npy files do")
            arrays = {name: data[name] for name in data.files}
    except (ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as e:
        raise feeds.UsageError(f"{path} is not an .npz file: {e}") from e
    known = ", ".join(arrays)
    y = next((arrays[n] for n in ([target] if target else _TARGETS) if n in arrays and n not in inputs), None)
    if y is None:
        raise feeds.UsageError(f"{path} has no array {target or ' or '.join(_TARGETS)}; there are: {known}")
    if len(inputs) == 1 and inputs[0] not in arrays and "x" in arrays:
        arrays[inputs[0]] = arrays["x"]
    for name in inputs:
        if name not in arrays:
            raise feeds.UsageError(f"{path} has no array for the input {name!r}; there are: {known}")
    if not y.ndim:
        raise feeds.UsageError(f"{path}: the target is one number, not one for each sample")
    return {name: arrays[name] for name in inputs}, y


def _check_writable(path: str) -> None:
    """Before a training whose checkpoints go there."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise feeds.UsageError(f"--checkpoint {path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise feeds.UsageError(f"--checkpoint {path} is a folder: give the name of a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise feeds.UsageError(f"--checkpoint {path}: no file can be made in {folder}")


def _data(args: argparse.Namespace, inputs: list[tuple[str, str, list[Any]]]) -> tuple[dict[str, Any], Any]:
    names = [name for name, _, _ in inputs]
    if args.data.endswith(".npz"):
        return read_npz(args.data, args.target, names)
    if not args.data.endswith(".csv"):
        raise feeds.UsageError(f"--data is a .csv or .npz file, not {args.data}")
    if len(names) != 1:
        raise feeds.UsageError(
            f"a CSV file feeds one input, the model has {len(names)} ({', '.join(names)}): give an .npz file"
        )
    x, y = read_csv(args.data, args.target)
    sample = inputs[0][2][1:]  # an image's pixels stand in a row
    if len(sample) > 1 and all(isinstance(d, int) for d in sample) and int(np.prod(sample)) == x.shape[1]:
        x = x.reshape(-1, *sample)
    return {names[0]: x}, y


def _print_epoch(trainer: Any, epoch: int, history: dict[str, list[float]]) -> None:
    values = ", ".join(f"{k} {v[-1]:.4g}" for k, v in history.items() if k != "seconds")
    print(f"epoch {epoch + 1}: {values} ({duration(history['seconds'][-1])})", flush=True)


def main(args: argparse.Namespace) -> int:
    from tiercel.training import Checkpoint, EarlyStopping, TensorBoard, Trainer

    if args.checkpoint:
        _check_writable(args.checkpoint)
    info = feeds.model_info(args.model)
    x, y = _data(args, info["inputs"])
    loss = args.loss or ("cross_entropy" if y.dtype.kind in "iu" else "mse")
    if loss not in _core.losses():
        raise feeds.UsageError(f"there is no loss {loss!r}; there are: {', '.join(_core.losses())}")
    if loss != "cross_entropy" and y.ndim == 1 and len(info["outputs"][0][2] or []) == 2:
        y = y[:, None]
    n = len(y) - round(len(y) * args.validation)
    steps = -(-n // (args.batch_size * args.accumulate))  # of an epoch
    resume = args.checkpoint if args.checkpoint and Path(args.checkpoint).exists() and not args.no_resume else None
    output = args.output or f"{Path(args.model).with_suffix('')}-trained.onnx"
    try:
        trainer = Trainer(
            args.model,
            loss,
            train_options.optimizer_of(args, steps),
            trainable=train_options.trainable_of(args),
            clip_norm=args.clip_norm,
            clip_value=args.clip_value,
            groups=train_options.groups_of(args),
            accumulate=args.accumulate,
            seed=args.seed,
            threads=args.threads,
        )
        trained: list[int] = []
        callbacks: list[Any] = [_print_epoch, lambda t, epoch, history: trained.append(epoch)]
        if args.no_resume and not args.checkpoint:
            raise feeds.UsageError("--no-resume needs --checkpoint FILE")
        if args.patience:
            callbacks.append(EarlyStopping(args.patience))
        if args.tensorboard:
            callbacks.append(TensorBoard(args.tensorboard))
        if args.checkpoint:
            callbacks.append(Checkpoint(args.checkpoint))
        trainer.fit(
            x,
            y,
            epochs=args.epochs,
            batch_size=args.batch_size,
            seed=args.seed,
            validation=args.validation or None,
            callbacks=callbacks,
            progress=False,
            resume=resume,
        )
        if resume and not trained:
            n = f"{trainer.epochs} epoch{'s' if trainer.epochs != 1 else ''}"
            why = f"has {n} already: --epochs says more" if trainer.epochs >= args.epochs else f"ended early, after {n}"
            print(f"nothing was left to train: {resume} {why} (--no-resume begins anew)")
        trainer.save(output)
    except (ValueError, ImportError) as e:
        raise feeds.UsageError(str(e)) from e
    print(f"wrote {output}")
    return 0

"""Largest error of every model of a folder against a run in double precision: onnxruntime's, Tiercel's, and Tiercel's without Winograd.

    python bench/accuracy.py FOLDER [--models NAME ...] [--threads 2] [--json FILE]
    python bench/accuracy.py FOLDER --models NAME --nodes 10      which nodes make it

An error is the largest |f32 - f64| of an output relative to the output's largest value; f64.py says what the f64 run is. Winograd is in use where
turning it off changes a bit. Ratios are over onnxruntime's error; those of at most 2 (4 with Winograd) pass, and so does an error within
the rounding of f32 itself, 2^-23. Exit code 1: one does not. --nodes computes each node alone, out of the f64 run's values rounded to f32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import f64
from tables import markdown
from tiercel.cli import compare
from tiercel.cli.text import progress

BAR, WINOGRAD_BAR, ROUNDING = 2.0, 4.0, 2.0**-23


@contextlib.contextmanager
def without(rewrite: str) -> Iterator[None]:
    """Processes that are started meanwhile leave a pass out."""
    before = os.environ.get("TIERCEL_DISABLE_PASS")
    os.environ["TIERCEL_DISABLE_PASS"] = ",".join(filter(None, [before, rewrite]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["TIERCEL_DISABLE_PASS"]
        else:
            os.environ["TIERCEL_DISABLE_PASS"] = before


def outputs(engine: str, model: Path, inputs: Path, threads: int, folder: Path) -> dict[str, Any]:
    """What an engine computes in a process of its own, by the output's position."""
    saved = folder / "outputs.npz"
    compare.measure(engine, model, inputs, threads, 0, saved)
    with np.load(saved) as archive:
        return {n: archive[n] for n in archive.files}


def errors(model: Path, inputs: Path, threads: int) -> dict[str, Any]:
    """A row: the errors, whether Winograd is used, the ratios and whether they pass."""
    with np.load(inputs) as archive:
        feeds = dict(archive)
    with compare.inputs_file({}) as scratch:
        runs = {e: outputs(e, model, inputs, threads, scratch.parent) for e in ("onnxruntime", "tiercel")}
        with without("winograd"):
            runs["direct"] = outputs("tiercel", model, inputs, threads, scratch.parent)
    exact = {str(i): a for i, a in enumerate(f64.outputs(onnx.load(model), feeds))}
    row: dict[str, Any] = {e: compare.difference(o, exact) for e, o in runs.items()}
    row["winograd"] = any(runs["direct"][n].tobytes() != a.tobytes() for n, a in runs["tiercel"].items())
    row["passes"] = passes(row)
    return row


def passes(row: dict[str, Any]) -> bool:
    bar = WINOGRAD_BAR if row["winograd"] else BAR
    return bool(row["tiercel"] <= max(row["onnxruntime"] * bar, ROUNDING))


def cells(name: str, row: dict[str, Any]) -> list[str]:
    def ratio(key: str) -> str:
        return f"{row[key] / row['onnxruntime']:.2f}" if row["onnxruntime"] else ""

    direct = [f"{row['direct']:.1e}", ratio("direct")] if row["winograd"] else ["", ""]
    verdict = "yes" if row["passes"] else "no"
    return [name, f"{row['onnxruntime']:.1e}", f"{row['tiercel']:.1e}", ratio("tiercel"), *direct, verdict]


HEADER = ["model", "onnxruntime", "Tiercel", "ratio", "without Winograd", "ratio", "within the bar"]


# ---- nodes


def node_errors(model: Path, inputs: Path) -> list[tuple[float, float, str]]:
    """(Tiercel's error, onnxruntime's, the node) of every node of the main graph that computes in f32, worst first."""
    proto = onnx.load(model)
    with np.load(inputs) as archive:
        values = f64.values(proto, dict(archive))
    rows = []
    for node in progress(list(proto.graph.node), "nodes"):
        used = {n: values[n] for n in node.input if n and values.get(n) is not None}
        if len(used) < len({n for n in node.input if n}) or any(a.type == a.GRAPH for a in node.attribute):
            continue
        if not node.input or any(values[o].dtype != np.float64 for o in node.output if o):
            continue
        given = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in used.items()}
        single = alone(proto, node, given)
        exact = {str(i): a for i, a in enumerate(f64.outputs(single, given))}
        found = [compare.difference(run_here(e, single, given), exact) for e in ("tiercel", "onnxruntime")]
        shapes = " ".join("x".join(map(str, a.shape)) for a in used.values())
        rows.append((found[0], found[1], f"{node.op_type} {node.name} {shapes}"))
    return sorted(rows, reverse=True)


def alone(model: onnx.ModelProto, node: onnx.NodeProto, given: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The node as a model; what the model keeps as initializers stays one, so that kernels are chosen as there."""
    constants = {t.name for t in model.graph.initializer}
    made = {o for n in model.graph.node if n.op_type in ("Constant", "Identity") for o in n.output}
    fixed = {n for n in given if n in constants | made}
    declared = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in given.items()
        if n not in fixed
    ]
    results = [onnx.helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in node.output if o]
    initializers = [onnx.numpy_helper.from_array(np.asarray(given[n]), n) for n in fixed]
    graph = onnx.helper.make_graph([node], "node", declared, results, initializers)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, functions=model.functions, ir_version=9)


def run_here(engine: str, model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    import importlib

    library = importlib.import_module(engine)
    options = library.SessionOptions()
    options.log_severity_level = 3
    session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    needed = {i.name for i in session.get_inputs()}
    return {str(i): a for i, a in enumerate(session.run(None, {n: a for n, a in feeds.items() if n in needed}))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", help="names, all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--nodes", type=int, metavar="N", help="instead, the N nodes of each model with the largest errors of their own"
    )
    parser.add_argument("--json", type=Path, help="write the errors to a file")
    args = parser.parse_args()
    names = args.models or sorted(p.stem for p in args.folder.glob("*.onnx") if p.with_suffix(".npz").exists())
    if not names:
        print(f"{args.folder} holds no NAME.onnx with NAME.npz beside; make some with bench/zoo.py", file=sys.stderr)
        return 2
    if args.nodes:
        for name in names:
            worst = node_errors(args.folder / f"{name}.onnx", args.folder / f"{name}.npz")[: args.nodes]
            print(
                markdown([[name, "Tiercel", "onnxruntime"], *([n, f"{a:.1e}", f"{b:.1e}"] for a, b, n in worst)]), "\n"
            )
        return 0
    rows: dict[str, dict[str, Any]] = {}
    for name in progress(names, "models"):
        rows[name] = errors(args.folder / f"{name}.onnx", args.folder / f"{name}.npz", args.threads)
        print(
            f"{name}: Tiercel {rows[name]['tiercel']:.1e}, onnxruntime {rows[name]['onnxruntime']:.1e}", file=sys.stderr
        )
    print(markdown([HEADER, *(cells(n, r) for n, r in rows.items())]))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(r["passes"] for r in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

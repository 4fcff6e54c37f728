"""What a model holds: inputs, outputs, opset, operators, parameters, memory, and what is not supported."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from typing import Any

from tiercel.cli import feeds
from tiercel.cli.text import extents, size, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="NAME=N",
        help="extent of a symbolic dimension, for the memory it needs",
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def memory(path: str, dims: dict[str, int]) -> dict[str, int]:
    """Bytes that a session of the model takes; `programs` is 0 when the shapes of its inputs are not known."""
    from tiercel import InferenceSession, SessionOptions

    options = SessionOptions()
    for name, extent in dims.items():
        options.add_free_dimension_override_by_name(name, extent)
    return InferenceSession(path, options).memory()


def operator_lines(operators: list[tuple[str, str, int, int, bool]]) -> list[str]:
    """Operators by how often they stand in the model; a star marks those that are not supported."""
    rows: dict[tuple[str, str], list[Any]] = {}
    for domain, name, _, nodes, supported in operators:
        row = rows.setdefault((domain, name), [0, True])
        row[0] += nodes
        row[1] &= supported
    words = [
        f"{'' if domain == '' else domain + '.'}{name}{'' if supported else '*'} {nodes}"
        for (domain, name), (nodes, supported) in sorted(rows.items(), key=lambda r: (-r[1][0], r[0]))
    ]
    return textwrap.wrap(", ".join(w.replace(" ", "\0") for w in words), 100) if words else []


def main(args: argparse.Namespace) -> int:
    info = feeds.model_info(args.model)
    dims = feeds.dimensions(args, info["inputs"])
    info["file_bytes"] = os.path.getsize(args.model)
    info["memory"], problem = None, ""
    if not info["unsupported"]:
        from tiercel import errors

        try:
            info["memory"] = memory(args.model, dims)
        except errors.Error as e:  # the rest is still worth knowing
            problem = f"{type(e).__name__}: {e}"
    if args.json:
        print(json.dumps(info | {"problem": problem}, indent=1))
        return 0

    made_by = f", made by {info['producer']}" if info["producer"] else ""
    print(
        f"Model       {args.model} ({size(info['file_bytes'])}), graph {info['graph'] or '-'}, IR {info['ir_version']}{made_by}"
    )
    print("Opset       " + ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in info["opsets"].items()))
    if info["doc"]:
        print("About       " + textwrap.shorten(info["doc"], 100))
    for title, signature in (("Inputs", info["inputs"]), ("Outputs", info["outputs"])):
        rows = [[name, kind, extents(shape)] for name, kind, shape in signature] or [["none", "", ""]]
        for i, line in enumerate(table(rows, header=False).splitlines()):
            print(f"{title if i == 0 else '':<12}{line}")
    weights = sum(info["bytes"].values())
    kinds = ", ".join(f"{dtype} {size(n)}" for dtype, n in sorted(info["bytes"].items(), key=lambda kv: -kv[1]))
    print(f"Parameters  {info['parameters']:,} in {size(weights)}" + (f" ({kinds})" if kinds else ""))
    lines = operator_lines(info["operators"])
    print(f"Operators   {info['nodes']} nodes, {len({o[:2] for o in info['operators']})} operators")
    for line in lines:
        print("            " + line.replace("\0", " "))
    if info["metadata"]:
        print("Metadata    " + textwrap.shorten(", ".join(f"{k}={v}" for k, v in info["metadata"].items()), 200))
    if info["memory"]:
        _print_memory(info["memory"], info["inputs"])
    if info["unsupported"]:
        print(f"\nNot supported (marked * above): {len(info['unsupported'])}")
        for line in info["unsupported"]:
            print(textwrap.fill(line, 118, initial_indent="  ", subsequent_indent="    "))
    elif problem:
        print(f"\nThe operators are all there, but the model does not load: {problem}")
    else:
        print("Supported   yes, every operator")
    return 0


def _print_memory(m: dict[str, int], inputs: feeds.Signature) -> None:
    print(f"Memory      weights {size(m['weights'])}, packed for the kernels {size(m['packed'])}")
    if m["programs"]:
        print(f"            intermediates {size(m['arena'])} (at most {size(m['live_bound'])} of them live at once)")
        print(f"            {m['instructions']} instructions, {m['barriers']} barriers a run")
    else:
        symbols = sorted({d for _, _, dims in inputs for d in dims or () if isinstance(d, str)})
        hint = " ".join(f"--dim {s}=N" for s in symbols)
        print("            intermediates depend on the shapes of the inputs" + (f": give {hint}" if hint else ""))

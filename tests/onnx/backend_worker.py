"""Runs cases of onnx.backend.test, named on standard input one a line, and writes a JSON line before and after each.

A process of its own, so that a crash is seen, attributed to the case that caused it, and costs no other case.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
import warnings
from typing import Any


def all_cases() -> dict[str, Any]:
    """Every CPU case, as "kind/name" -> function of a TestCase."""
    from onnx.backend.test import BackendTest

    import tiercel.backend

    cases = {}
    for category, tests in BackendTest(tiercel.backend.TiercelBackend, __name__).test_cases.items():
        kind = category.removeprefix("OnnxBackend").removesuffix("ModelTest").replace("PyTorch", "pytorch-").lower()
        for name in dir(tests):
            if name.endswith("_cpu"):
                cases[f"{kind}/{name.removesuffix('_cpu')}"] = getattr(tests, name)
    return cases


def run_case(case: Any) -> tuple[str, str]:
    """("pass" | "fail" | "skip", message)."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            case(unittest.TestCase())
    except unittest.SkipTest as e:
        return "skip", str(e)
    except BaseException as e:
        return "fail", f"{type(e).__name__}: {e}"
    return "pass", ""


def main() -> None:
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    with tempfile.TemporaryDirectory() as folder:  # where the suite unpacks models
        os.environ["ONNX_MODELS"] = folder
        cases = all_cases()
        print(json.dumps({"cases": sorted(cases)}), file=out)
        for line in sys.stdin:
            name = line.strip()
            print(json.dumps({"begin": name}), file=out)
            status, message = run_case(cases[name])
            print(json.dumps({"end": name, "status": status, "message": message[:2000]}), file=out)


if __name__ == "__main__":
    main()

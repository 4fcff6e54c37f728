"""The table of what is differentiable: the rows of the registry against the gradient rules.

python bench/differentiable.py [--missing]
"""

from __future__ import annotations

import argparse

from tiercel import _core
from tiercel.training import differentiable_operators


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true", help="only operators of ONNX without a rule")
    missing_only = parser.parse_args().missing
    rules = differentiable_operators()
    names = sorted({(domain, name) for domain, name, _ in _core.operators()})
    told = {True: "yes", False: "zero", None: "-"}
    if not missing_only:
        print("| operator | gradient |\n|---|---|")
    for domain, name in names:
        rule = rules.get((domain, name))
        if missing_only and (domain or rule is not None):
            continue
        print(f"{name}" if missing_only else f"| {domain + '.' if domain else ''}{name} | {told[rule]} |")
    onnx = [n for d, n in names if not d]
    print(f"{sum(('', n) in rules for n in onnx)} of the {len(onnx)} operators of ai.onnx have a rule, of which "
          f"{sum(not s for (d, n), s in rules.items() if not d)} are zero")  # fmt: skip


if __name__ == "__main__":
    main()

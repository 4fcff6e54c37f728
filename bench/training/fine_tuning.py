"""Fine-tuning of ResNet-50 and BERT-base as torch.onnx.export writes them, against PyTorch: the losses of the first steps.

    python bench/training/fine_tuning.py [--models resnet50 bert_base] [--forms training plain zoo] [--how all head lora] [--optimizers momentum adamw]
                                         [--steps 20] [--threads 2] [--double]        needs the extra `bench`

Same weights, data and adapters. `training`: exported with TrainingMode.TRAINING; `plain`: in evaluation mode without folding; `zoo`: as bench/zoo.py
does, where BatchNormalization is folded into convolutions (and in PyTorch's module then too). Prints a table of the largest difference of the losses.
--double runs PyTorch in double precision too where they differ by more than 1e-4, and says which one is off; --double always: everywhere.
Exit code 1: above 1e-4, and not shown to be no further from the double run than twice what PyTorch is.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "training"))
import torch
import torch_reference as reference

import tables


def resnet50() -> reference.Case:
    """The last scale of each block is small, as is usual: a deep network whose branches weigh as much as what they are added to is so
    sensitive that PyTorch's losses in float and in double have no digit in common after a few steps."""
    case = reference.resnet(batch=4, side=64, classes=1000)
    for name, module in case.module.named_modules():
        if name.endswith("layer.2.normalization"):
            torch.nn.init.constant_(module.weight, 0.1)
    return case


CASES = {"resnet50": resnet50, "bert_base": lambda: reference.bert(batch=2, length=16, classes=2)}
# Small steps: where rounding decides on which side of a ReLU a value is, gradients differ by a thousandth, and the losses by that share of their fall.
RATES = {("resnet50", "momentum"): 2e-5, ("bert_base", "momentum"): 1e-3, ("resnet50", "adamw"): 1e-6, ("bert_base", "adamw"): 1e-5}

FEW = 20  # times that, where only the head or adapters are trained


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--forms", nargs="+", choices=reference.FORMS, default=["training", "zoo"])
    parser.add_argument("--how", nargs="+", choices=("all", "head", "lora"), default=["all", "head", "lora"])
    parser.add_argument("--optimizers", nargs="+", choices=reference.OPTIMIZERS, default=list(reference.OPTIMIZERS))
    parser.add_argument("--rate", type=float, help="the learning rate, instead of that of RATES")
    parser.add_argument("--steps", type=int, default=reference.STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--double", nargs="?", const="where needed", choices=("where needed", "always"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    header = ["model", "form", "trained", "optimizer", "first loss", "last loss", "difference", "ours from f64", "torch's from f64", "s"]
    print(f"{tables.line(header)}\n{tables.rule(len(header))}", flush=True)
    missed = False
    for name in args.models:
        case = CASES[name]()
        for form in args.forms:
            model = reference.export(case, form)
            for how in args.how:
                for optimizer in args.optimizers:
                    began = time.perf_counter()
                    rate = args.rate or RATES[name, optimizer] * (1 if how == "all" else FEW)

                    def run(double: bool) -> reference.Curves:
                        return reference.compare(case, model, form, how, optimizer, rate, double, args.steps, args.threads)  # noqa: B023

                    curves = run(args.double == "always")
                    if args.double == "where needed" and curves.worst() > reference.LIMIT:
                        curves = run(True)
                    exact = ["", ""]
                    within = curves.worst() <= reference.LIMIT
                    if curves.double:
                        ours, theirs = curves.worst("double"), curves.worst("double", "torch")
                        within |= ours <= 2 * theirs
                        exact = [f"{ours:.1e}", f"{theirs:.1e}"]
                    missed |= not within
                    cells = [
                        name, form, how, optimizer, f"{curves.ours[0]:.4f}", f"{curves.ours[-1]:.4f}", f"{curves.worst():.1e}", *exact,
                        f"{time.perf_counter() - began:.0f}",
                    ]  # fmt: skip
                    print(tables.line(cells), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

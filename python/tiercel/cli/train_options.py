"""How `tiercel train` says optimiser, learning rate, groups and adapters."""

from __future__ import annotations

import argparse
import inspect
import math
from typing import TYPE_CHECKING, Any

from tiercel.cli import feeds

if TYPE_CHECKING:
    from tiercel.training import LoRA, Optimizer, Schedule

SCHEDULES = ("constant", "step", "cosine", "one-cycle", "plateau")
_KEYS = {"lr": "lr", "weight-decay": "weight_decay", "weight_decay": "weight_decay"}


def whole(least: int) -> Any:
    """The type of an option that is an integer of at least so much."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {text!r}")
        return value

    return parse


def number(text: str) -> float:
    """The type of an option that is a number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def add_weights(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which weights")
    group.add_argument(
        "--trainable",
        default="all",
        metavar="all|head|PATTERN,...",
        help="weights that are trained: all (the default), the last layer, or those whose names match (* ? [])",
    )
    group.add_argument(
        "--lora",
        type=whole(1),
        metavar="RANK",
        help="train low-rank adapters instead; they are merged in what is written",
    )
    group.add_argument(
        "--lora-alpha", type=number, metavar="X", help="their factor is alpha / RANK (default: alpha = RANK)"
    )
    group.add_argument(
        "--lora-targets",
        metavar="PATTERN,...",
        help="weights that get one (default: all of MatMul and Gemm); with --trainable PATTERN,... those are trained too",
    )
    group.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="PATTERN:KEY=X,...",
        help="for weights whose names match: lr (a factor of the learning rate), weight-decay; may be given again, the "
        "first that matches counts. Such as --group '*.bias:weight-decay=0' --group 'encoder.*:lr=0.1'",
    )


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimizer")
    group.add_argument(
        "--optimizer",
        default="adam",
        metavar="NAME",
        help="sgd, momentum, rmsprop, adagrad, adam (the default), adamw, lion",
    )
    group.add_argument("--momentum", type=number, metavar="X", help="of sgd (default 0, of `momentum` 0.9) and rmsprop")
    group.add_argument("--nesterov", action="store_true", help="Nesterov's momentum, of sgd and momentum")
    group.add_argument("--beta1", type=number, metavar="X", help="of adam, adamw and lion: what stays of the first moment (0.9)")
    group.add_argument("--beta2", type=number, metavar="X", help="and of the second (0.999, of lion 0.99)")
    group.add_argument("--alpha", type=number, metavar="X", help="of rmsprop: what stays of the mean of squares (0.99)")
    group.add_argument(
        "--epsilon", type=number, metavar="X", help="of adam, adamw, rmsprop (1e-8) and adagrad (1e-10), added to the root"
    )
    group.add_argument("--lr-decay", type=number, metavar="X", help="of adagrad (0)")
    group.add_argument(
        "--lazy", action="store_true", help="of adam and adamw: only those rows of embeddings move that a batch has"
    )
    group.add_argument("--weight-decay", type=number, metavar="X", help="default 0, of adamw 0.01")
    group.add_argument(
        "--clip-norm", type=number, default=0.0, metavar="X", help="the most that the gradients' norm may be"
    )
    group.add_argument(
        "--clip-value", type=number, default=0.0, metavar="X", help="the most that a gradient's element may be"
    )


def add_rate(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "learning rate",
        "step: times --lr-factor every --lr-every epochs\n"
        "cosine: down half a cosine, to --lr-min at the end\n"
        "one-cycle: up half a cosine for 0.3 of all steps, then down another\n"
        "plateau: times --lr-factor, at least --lr-min, after more than --lr-every epochs without a better loss",
    )
    group.add_argument(
        "--lr", type=number, metavar="X", help="learning rate, the highest (default: the optimizer's own)"
    )
    group.add_argument("--schedule", choices=SCHEDULES, default="constant", help="default: constant")
    group.add_argument("--lr-factor", type=number, metavar="X", help="of step and plateau (default 0.1)")
    group.add_argument(
        "--lr-every",
        type=whole(1),
        metavar="N",
        help="epochs, of step (default: a third of all) and plateau (default 3)",
    )
    group.add_argument("--lr-min", type=number, metavar="X", help="of cosine and plateau (default 0)")
    group.add_argument(
        "--warm-up", type=whole(0), default=0, metavar="N", help="steps in which it rises in a line first"
    )


def optimizer_of(args: argparse.Namespace, steps_of_epoch: int) -> Optimizer:
    """With its learning rate over ``args.epochs`` epochs."""
    from tiercel.training.optimizers import by_name

    make = by_name(args.optimizer)
    given = {
        "momentum": args.momentum,
        "nesterov": args.nesterov or None,
        "lazy": args.lazy or None,
        **{name: getattr(args, name) for name in ("beta1", "beta2", "alpha", "epsilon", "lr_decay", "weight_decay")},
    }
    options = {k: v for k, v in given.items() if v is not None}
    for name in options:
        if name not in inspect.signature(make).parameters:
            raise feeds.UsageError(f"--{name.replace('_', '-')} is no option of the optimizer {args.optimizer}")
    optimizer = make(**options)
    optimizer.lr = _rate(args, args.lr if args.lr is not None else optimizer.rate(0), steps_of_epoch)
    return optimizer


def _rate(args: argparse.Namespace, lr: float, steps_of_epoch: int) -> float | Schedule:
    from tiercel.training import Cosine, OneCycle, ReduceOnPlateau, StepDecay, WarmUp

    for option, names in (
        ("factor", ("step", "plateau")),
        ("every", ("step", "plateau")),
        ("min", ("cosine", "plateau")),
    ):
        if getattr(args, f"lr_{option}") is not None and args.schedule not in names:
            raise feeds.UsageError(
                f"--lr-{option} has a meaning with --schedule {' and '.join(names)}, not {args.schedule}"
            )
    steps = args.epochs * steps_of_epoch
    factor = 0.1 if args.lr_factor is None else args.lr_factor
    if factor >= 1 or not factor:
        raise feeds.UsageError(f"--lr-factor is within (0, 1), not {factor:g}")
    least = args.lr_min or 0.0
    if least > lr:
        raise feeds.UsageError(f"--lr-min {least:g} is above the learning rate {lr:g}")
    rate: float | Schedule = lr
    if args.schedule == "step":
        rate = StepDecay(lr, max(args.lr_every or -(-args.epochs // 3), 1) * max(steps_of_epoch, 1), factor)
    elif args.schedule == "cosine":
        rate = Cosine(lr, max(steps, 1), least)
    elif args.schedule == "one-cycle":
        rate = OneCycle(lr, max(steps, 2))
    elif args.schedule == "plateau":
        rate = ReduceOnPlateau(lr, factor, patience=args.lr_every or 3, minimum=least)
    return WarmUp(rate, args.warm_up) if args.warm_up else rate


def groups_of(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """What --group says, by pattern."""
    groups: dict[str, dict[str, float]] = {}
    for text in args.group:
        pattern, _, rest = text.rpartition(":")  # names may have colons
        own = {}
        for part in rest.split(","):
            key, _, value = part.partition("=")
            try:
                own[_KEYS[key.strip()]] = number(value)
            except (KeyError, argparse.ArgumentTypeError):
                own = {}
                break
        if not pattern or not own:
            raise feeds.UsageError(
                f"--group {text}: expected PATTERN:lr=X, PATTERN:weight-decay=X or both with a comma, X of at least 0"
            )
        if pattern in groups:
            raise feeds.UsageError(f"--group {text}: {pattern!r} has a group already")
        groups[pattern] = own
    return groups


def trainable_of(args: argparse.Namespace) -> str | list[str] | LoRA:
    from tiercel.training import LoRA

    chosen: str | list[str] = args.trainable if args.trainable in ("all", "head") else args.trainable.split(",")
    if args.lora is None:
        for option in ("alpha", "targets"):
            if getattr(args, f"lora_{option}") is not None:
                raise feeds.UsageError(f"--lora-{option} needs --lora RANK")
        return chosen
    if chosen == "head":
        raise feeds.UsageError(
            "--lora trains adapters: with it --trainable takes patterns of weights that are trained too"
        )
    targets = args.lora_targets.split(",") if args.lora_targets is not None else None
    return LoRA(args.lora, args.lora_alpha, targets, [] if chosen == "all" else chosen)

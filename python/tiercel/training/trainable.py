"""Which weights a Trainer trains, and what holds for groups of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from tiercel import _core
from tiercel.training.checks import number
from tiercel.training.lora import LoRA


def check_pattern(pattern: str, known: Sequence[str]) -> None:
    if not any(fnmatch.fnmatchcase(n, pattern) for n in known):
        raise ValueError(
            f"no weight matches {pattern!r}; there are: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}"
        )


def weights_of(trainable: str | Sequence[str] | LoRA, data: bytes, folder: str, output: str) -> list[str]:
    """The names of the weights that ``trainable`` says; empty: all. Of a LoRA those beside the adapters."""
    adapted = isinstance(trainable, LoRA)
    chosen = trainable.trainable if isinstance(trainable, LoRA) else trainable
    if chosen == "all":
        return list(_core.trainable_weights(data, folder)) if adapted else []
    if chosen == "head":
        return list(_core.head_weights(data, folder, output))
    known = list(_core.trainable_weights(data, folder))
    scalars = [n for n in _core.scalar_weights(data, folder) if n not in known]
    if not isinstance(chosen, (str, Sequence)) or not all(isinstance(p, str) for p in chosen):
        raise TypeError(f'trainable is "all", "head", patterns of names or a LoRA, not {chosen!r}')
    patterns = [chosen] if isinstance(chosen, str) else list(chosen)
    for p in patterns:  # a scalar is meant by its name, or where nothing else can be
        if p in scalars or not fnmatch.filter(known, p):
            known += [n for n in scalars if n not in known and fnmatch.fnmatchcase(n, p)]
        check_pattern(p, known)
    names = [n for n in known if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    if not names and not adapted:
        raise ValueError('trainable names no weight: give patterns, "all", "head" or a LoRA')
    return names


def options_of(groups: Mapping[str, Mapping[str, float]], known: Sequence[str]) -> dict[str, tuple[float, float | None]]:
    """(factor of the learning rate, weight decay) of each weight that a group names: the first one counts."""
    if not isinstance(groups, Mapping) or not all(isinstance(own, Mapping) for own in groups.values()):
        raise TypeError(f'groups are {{"*.bias": {{"weight_decay": 0}}}}, settings by pattern, not {groups!r}')
    for pattern, own in groups.items():
        check_pattern(pattern, known)
        for key in own:
            if key not in ("lr", "weight_decay"):
                raise ValueError(f"a group has lr (a factor) and weight_decay, not {key!r}")
            number(f"{key} of the group {pattern!r}", own[key])
    chosen = {n: next((own for p, own in groups.items() if fnmatch.fnmatchcase(n, p)), None) for n in known}
    return {n: (float(own.get("lr", 1.0)), own.get("weight_decay")) for n, own in chosen.items() if own is not None}

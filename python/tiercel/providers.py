"""Execution providers: there is one, the processor. The rest is what programs written for several expect."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

_AVAILABLE = ["CPUExecutionProvider"]
_warned: set[str] = set()


def get_available_providers() -> list[str]:
    """``["CPUExecutionProvider"]``."""
    return list(_AVAILABLE)


def get_all_providers() -> list[str]:
    """``["CPUExecutionProvider"]``: all that the engine was built with."""
    return list(_AVAILABLE)


def get_device() -> str:
    """``"CPU"``."""
    return "CPU"


def _warn_once(key: str, message: str) -> None:
    """Warns where the package was called, the first time that this key comes."""
    if key in _warned:
        return
    _warned.add(key)
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("tiercel."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def check_and_normalize_provider_args(
    providers: Sequence[str | tuple[str, dict[Any, Any]]] | None,
    provider_options: Sequence[dict[Any, Any]] | None,
    available_provider_names: Sequence[str],
) -> tuple[list[str], list[dict[str, str]]]:
    """Names and options of the providers asked for, in order and without duplicates.

    providers: names, or (name, options) pairs; provider_options: a dict for each, when providers are names alone. A name that is
    not available is warned of once a process and kept. Raises ``ValueError`` when the arguments have another form.
    """
    if providers is None:
        return [], []
    if isinstance(providers, str) or not isinstance(providers, Sequence):
        raise ValueError("'providers' should be a sequence of names or (name, options) pairs")
    if provider_options is not None:
        if not isinstance(provider_options, Sequence) or len(providers) != len(provider_options):
            raise ValueError("'provider_options' should be a sequence as long as 'providers'")
        if not all(isinstance(p, str) for p in providers):
            raise ValueError("'providers' should be names alone when 'provider_options' is given")
        pairs: list[Any] = list(zip(providers, provider_options, strict=True))
    else:
        pairs = [(p, {}) if isinstance(p, str) else p for p in providers]
    chosen: dict[str, dict[str, str]] = {}
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict)):
            raise ValueError("'providers' should be names or (name, options) pairs")
        name, options = pair
        if name not in available_provider_names:
            known = ", ".join(available_provider_names)
            _warn_once(
                name, f"Specified provider '{name}' is not in available provider names. Available providers: '{known}'"
            )
        if name in chosen:
            _warn_once(f"twice {name}", f"Duplicate provider '{name}' encountered, ignoring.")
            continue
        chosen[name] = {str(k): str(v) for k, v in options.items()}
    return list(chosen), list(chosen.values())


def resolve(
    providers: Sequence[str | tuple[str, dict[Any, Any]]] | None, provider_options: Sequence[dict[Any, Any]] | None
) -> dict[str, dict[str, str]]:
    """What the session then has: the processor, whatever was asked for. Malformed arguments are a warning, as they are for
    onnxruntime, which falls back."""
    if isinstance(providers, str):
        providers = [providers]
    try:
        check_and_normalize_provider_args(providers, provider_options, _AVAILABLE)
    except ValueError as e:
        _warn_once(str(e), f"{e}; falling back to CPUExecutionProvider")
    return {name: {} for name in _AVAILABLE}

"""The path of a call (Cython)."""

from collections.abc import Iterable, Mapping
from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class RunOptions:
    logid: str
    tag: str
    log_severity_level: int
    log_verbosity_level: int
    only_execute_path_to_fetches: bool
    terminate: bool
    def add_run_config_entry(self, key: str, value: str) -> None: ...
    def get_run_config_entry(self, key: str) -> str: ...

@disjoint_base
class Session:
    _input_names: tuple[str, ...]
    _output_names: tuple[str, ...]
    _overridable_names: tuple[str, ...]
    def run(
        self,
        output_names: Iterable[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]: ...
    def _run_into(
        self,
        output_names: Iterable[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None,
        given: list[Any],
    ) -> list[Any]: ...
    def _load(self, model: str | bytes, folder: str, options: list[tuple[str, str]]) -> None: ...
    def _adopt(self, capsule: Any) -> None: ...
    def _handle(self) -> Any: ...
    def _describe(self, what: int) -> list[tuple[str, int, int, list[int | str | None] | None]]: ...

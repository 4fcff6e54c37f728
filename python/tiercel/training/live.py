"""The session that a Trainer hands out."""

from __future__ import annotations

from typing import Any

from tiercel import _core
from tiercel.options import SessionOptions
from tiercel.session import InferenceSession


class LiveSession(InferenceSession):
    """An InferenceSession whose every run has the weights of a training as they are when it begins: those before a step or
    those after it. What a step did not change is kept: graph, plans, packed weights. Pickled it becomes an
    InferenceSession with the weights of then."""

    def __init__(self, core: _core.TrainingSession, threads: int) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = threads
        self._core = core
        self._begin(core.live_session(threads), options)

    def _begin(self, session: Any, options: SessionOptions) -> None:
        self._arguments = ("", options, {})
        self._sess_options = options
        self._set_providers(None, None)
        self._profile_start = 0
        self._adopt(session)
        self._describe_all()

    def _follow(self, core: _core.TrainingSession) -> None:
        _core.follow(self._handle(), core)
        self._core = core

    @property
    def _model_path(self) -> str | None:
        return None

    @property
    def _model_bytes(self) -> bytes | None:
        return self._core.model()

    def __reduce__(self) -> tuple[Any, ...]:
        return InferenceSession, (self._core.model(), self._sess_options)

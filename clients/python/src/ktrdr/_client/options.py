"""The named arguments of starts and lists, as types. A type checker knows the names; the backend refuses others."""

from __future__ import annotations

import datetime
from typing import Any, Dict, Mapping, Sequence, TypedDict, Union

__all__ = ["Execution", "Filter"]

Time = Union[str, datetime.datetime]
Texts = Union[str, Sequence[str]]


class Execution(TypedDict, total=False):
    """How to run an operation. `docs/control.md` and `docs/api.md` of the project describe each."""

    requirements: Mapping[str, Any]
    timeout_seconds: float
    stall_timeout_seconds: float
    max_attempts: int
    retry_delay: float
    priority: int
    start_at: Time
    delay_seconds: float
    expires_at: Time
    queue_timeout_seconds: float
    labels: Mapping[str, str]
    unique: Dict[str, Any]
    concurrency: Dict[str, Any]


class Filter(TypedDict, total=False):
    """Which operations; all that is given must match."""

    status: Texts
    operation_type: Texts
    error_code: Texts
    labels: Mapping[str, str]
    worker_id: str
    schedule_id: str
    created_after: Time
    created_before: Time
    ended_after: Time
    search: str

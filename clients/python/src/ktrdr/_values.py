"""Values as JSON: results, checkpoints, and the counters of progress."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import uuid
from typing import Any

__all__ = ["to_json", "plain"]

_TEXTS = (pathlib.PurePath, uuid.UUID)
_TIMES = (datetime.datetime, datetime.date, datetime.time)


def to_json(value: Any) -> str:
    """A value as one line of JSON. What JSON has no word for, as NaN, is `null`."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return json.dumps(plain(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """A value made of what JSON has: pydantic models, dataclasses, numpy, torch, dates, paths, sets, enums."""
    if value is None or isinstance(value, (bool, str)) and not isinstance(value, enum.Enum):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, decimal.Decimal)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, _TIMES):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, _TEXTS):
        return str(value)
    if hasattr(value, "model_dump"):
        # The schema of a model has its aliases.
        return plain(value.model_dump(by_alias=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy and torch
        return plain(value.tolist())
    if hasattr(value, "to_dicts"):  # polars
        return plain(value.to_dicts())
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON: {value!r:.100}")


def _key(key: Any) -> str:
    key = plain(key)
    return key if isinstance(key, str) else json.dumps(key)

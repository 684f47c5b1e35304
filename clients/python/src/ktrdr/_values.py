"""Values as JSON: results, checkpoints, and the counters of progress."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import sys
import uuid
from typing import Any

__all__ = ["MAX_DEPTH", "plain", "to_json"]

#: Most levels of lists and objects in a value. A message has 100, and the value is in it.
MAX_DEPTH = 99

_TEXTS = (pathlib.PurePath, uuid.UUID)
_TIMES = (datetime.datetime, datetime.date, datetime.time)


def to_json(value: Any) -> str:
    """A value as one line of JSON. What JSON has no word for, as NaN, is `null`."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):
        # The value may be a whole message.
        return json.dumps(plain(value, MAX_DEPTH + 2), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def plain(value: Any, levels: int = MAX_DEPTH) -> Any:
    """A value made of what JSON has: pydantic models, dataclasses, numpy, pandas, torch, dates, paths, sets, enums.

    Raises `ValueError` when it has more levels, and `TypeError` when something in it cannot be written.
    """
    if value is None or isinstance(value, (bool, str)) and not isinstance(value, enum.Enum):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, levels)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, decimal.Decimal)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        if levels == 0:
            raise ValueError(f"a value is nested too deep: {MAX_DEPTH} levels of lists and objects are allowed. Write it to a file, and give its name")
        if isinstance(value, dict):
            return {_key(key): plain(item, levels - 1) for key, item in value.items()}
        return [plain(item, levels - 1) for item in value]
    if _is_missing(value):
        return None
    if isinstance(value, _TIMES):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, _TEXTS):
        return str(value)
    if hasattr(value, "model_dump"):
        # The schema of a model has its aliases.
        return plain(value.model_dump(by_alias=True), levels)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # The others are no part of the schema.
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}, levels)
    if hasattr(value, "tolist"):  # numpy and torch
        return plain(_listed(value), levels)
    if hasattr(value, "to_dicts"):  # polars
        return plain(value.to_dicts(), levels)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON: {value!r:.100}")


def _is_missing(value: Any) -> bool:
    """What pandas writes for a value that is not there; its `NaT` is a time for `isinstance`."""
    return type(value).__name__ in ("NaTType", "NAType")


def _listed(value: Any) -> Any:
    """What `tolist` makes, but times of numpy as ISO texts and its durations in seconds: it makes integers of those with nanoseconds."""
    numpy = sys.modules.get("numpy")
    dtype = getattr(value, "dtype", None)
    if numpy is None or not isinstance(dtype, numpy.dtype) or dtype.kind not in "mM":
        return value.tolist()
    values = numpy.asarray(value)
    if dtype.kind == "m":
        return (values / numpy.timedelta64(1, "s")).tolist()
    return _times(numpy.datetime_as_string(values).tolist())


def _times(text: Any) -> Any:
    if isinstance(text, list):
        return [_times(item) for item in text]
    if text == "NaT":
        return None
    # Zeros at the end of a fraction say nothing.
    return text.rstrip("0").rstrip(".") if "." in text else text


def _key(key: Any) -> str:
    key = plain(key)
    return key if isinstance(key, str) else json.dumps(key)

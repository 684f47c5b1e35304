"""Values of request and result types, made of JSON.

The backend has checked a request against the schema, so what does not fit is the exception: a value that only another member of a
union can be, or a request of a test.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import pathlib
import re
import typing
import uuid
from typing import Any, Dict, Tuple

from ._kinds import UNIONS, arguments_of, hints_of, is_pydantic, is_required_mark, is_typed_dict

__all__ = ["make"]

_LISTS = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
}
_TEXTS = (uuid.UUID, pathlib.Path)


def make(kind: Any, value: Any) -> Any:
    """A value of this type. Raises `ValueError` or `TypeError` when the JSON does not fit."""
    if hasattr(kind, "__metadata__"):
        return make(kind.__origin__, value)
    origin, arguments = typing.get_origin(kind), arguments_of(kind)
    if origin is not None:
        return _make_generic(origin, arguments, value)
    if not isinstance(kind, type):
        return _need(value is None, kind, value) if kind is None else value

    if is_pydantic(kind):
        return kind.model_validate(value)  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(kind) or is_typed_dict(kind):
        return _make_object(kind, value)
    if issubclass(kind, enum.Enum):
        return kind(value)
    return _make_simple(kind, value)


def _make_generic(origin: Any, arguments: Tuple[Any, ...], value: Any) -> Any:
    if origin in UNIONS:
        return _make_first(arguments, value)
    if origin is typing.Literal:
        return _need(value in arguments, arguments, value)
    if is_required_mark(origin):
        return make(arguments[0], value)
    if origin in _LISTS:
        _need(isinstance(value, list), origin, value)
        return _LISTS[origin](make(arguments[0], item) for item in value)
    if origin is tuple:
        _need(isinstance(value, list), origin, value)
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        _need(len(kinds) == len(value), arguments, value)
        return tuple(make(kind, item) for kind, item in zip(kinds, value))
    if origin in (dict, collections.abc.Mapping):
        _need(isinstance(value, dict), origin, value)
        return {key: make(arguments[1], item) for key, item in value.items()}
    return value


def _make_first(kinds: Tuple[Any, ...], value: Any) -> Any:
    """The first member of a union that the value fits: `None` for null, and a number before a text that looks like one."""
    reasons = []
    for kind in kinds:
        try:
            return make(kind, value)
        except (TypeError, ValueError) as error:
            reasons.append(str(error))
    raise ValueError("; ".join(reasons))


def _make_object(kind: Any, value: Any) -> Any:
    _need(isinstance(value, dict), kind, value)
    hints = hints_of(kind)
    unknown = [name for name in value if name not in hints]
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(map(repr, unknown))}")

    members: Dict[str, Any] = {name: make(hints[name], item) for name, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return kind(**members)  # type: ignore[operator]
    missing = sorted(kind.__required_keys__ - members.keys())
    if missing:
        raise ValueError(f"{kind.__name__} needs {', '.join(map(repr, missing))}")
    return members


def _make_simple(kind: type, value: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return int(_need(is_number and float(value).is_integer(), kind, value))
    if kind is float:
        return float(_need(is_number, kind, value))
    if kind is decimal.Decimal:
        return decimal.Decimal(str(_need(is_number or isinstance(value, str), kind, value)))
    if kind in (str, bool, dict, list, type(None)):
        return _need(isinstance(value, kind), kind, value)
    if kind in (datetime.datetime, datetime.date):
        return kind.fromisoformat(_iso(str(_need(isinstance(value, str), kind, value))))
    if issubclass(kind, _TEXTS):
        return kind(_need(isinstance(value, str), kind, value))
    return value


def _iso(text: str) -> str:
    """A time of RFC 3339 as Python 3.9 reads it: six digits of a second, and no letter for the zone."""
    text = re.sub(r"[zZ]$", "+00:00", text)
    return re.sub(r"\.(\d+)", lambda found: f".{found[1][:6]:0<6}", text)


def _need(fits: bool, kind: Any, value: Any) -> Any:
    if not fits:
        raise ValueError(f"{value!r:.100} is no {getattr(kind, '__name__', kind)}")
    return value

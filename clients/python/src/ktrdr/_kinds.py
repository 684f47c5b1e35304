"""What the kinds of types are that annotations may name."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any, Dict, Tuple

__all__ = ["UNIONS", "arguments_of", "hints_of", "is_pydantic", "is_required_mark", "is_typed_dict"]

UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))


def is_pydantic(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_json_schema")


def is_typed_dict(kind: Any) -> bool:
    """Also before Python 3.10, which has no `typing.is_typeddict`."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def is_required_mark(origin: Any) -> bool:
    """Also those of `typing_extensions`, which are others before Python 3.11."""
    modules = (typing, sys.modules.get("typing_extensions"))
    marks = [getattr(module, name, None) for module in modules for name in ("Required", "NotRequired")]
    return origin is not None and origin in marks


def arguments_of(kind: Any) -> Tuple[Any, ...]:
    """What stands in the brackets of a generic type; a bare `List` has items of any type."""
    arguments, origin = typing.get_args(kind), typing.get_origin(kind)
    if arguments or origin is None:
        return arguments
    if origin is tuple:
        return (Any, Ellipsis)
    return (Any, Any)


def hints_of(kind: Any) -> Dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)

"""JSON Schemas of request and result types.

pydantic does it for its models. Dataclasses, `TypedDict`s and plain annotations need no package.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import itertools
import pathlib
import typing
import uuid
from typing import Any, Callable, Dict, List, Optional, Tuple

from ._errors import DeclarationError
from ._kinds import UNIONS, arguments_of, hints_of, is_pydantic, is_required_mark, is_typed_dict
from ._make import make

__all__ = ["Schema", "request_of", "result_of", "schema_of"]

Schema = Dict[str, Any]

_RESERVED = ("task_id", "execution")

_SIMPLE: Dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    Any: {},
    object: {},
    dict: {"type": "object"},
    list: {"type": "array"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": "number"},
    pathlib.Path: {"type": "string"},
}


def request_of(kind: Any) -> Tuple[Schema, Callable[[Any], Any]]:
    """The schema of a request type, and what makes a value of it from JSON."""
    if isinstance(kind, dict):
        schema, maker = kind, _unchanged
    elif kind is None or kind is Any or kind is dict:
        schema, maker = {"type": "object"}, _unchanged
    else:
        schema, maker = schema_of(kind), lambda value: make(kind, value)
    properties = schema.get("properties", {})
    for name in _RESERVED:
        if name in properties:
            raise DeclarationError(
                f"a request cannot have the field {name!r}: every start body has it with another meaning. Rename it"
            )
    return schema, maker


def schema_of(kind: Any) -> Schema:
    """The JSON Schema of a type.

    `Annotated[int, {"minimum": 1}]` adds members to the schema of a field.
    """
    if isinstance(kind, dict):
        return kind
    definitions: Schema = {}
    schema = _schema_in(kind, definitions, ())
    return {**schema, "$defs": definitions} if definitions else schema


def _schema_in(kind: Any, definitions: Schema, around: Tuple[Any, ...]) -> Schema:
    """The schema of a type inside the types `around`. What it defines is added to the definitions, which stand at the root."""

    def of(part: Any) -> Schema:
        return _schema_in(part, definitions, around)

    if is_pydantic(kind):
        return _hoisted(_pydantic_schema(kind), definitions)
    try:
        if kind in _SIMPLE:
            return dict(_SIMPLE[kind])
    except TypeError:
        pass

    origin, arguments = typing.get_origin(kind), arguments_of(kind)
    if hasattr(kind, "__metadata__"):  # Annotated
        schema = of(kind.__origin__)
        for more in kind.__metadata__:
            if isinstance(more, dict):
                schema.update(more)
            elif isinstance(more, str):
                schema["description"] = more
        return schema
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in UNIONS:
        return {"anyOf": [of(argument) for argument in arguments]}
    if origin in (list, set, frozenset) or origin is not None and getattr(origin, "__name__", "") in ("Sequence", "Iterable"):
        return {"type": "array", "items": of(arguments[0])}
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": of(arguments[0])}
        return {"type": "array", "prefixItems": [of(argument) for argument in arguments], "minItems": len(arguments), "maxItems": len(arguments)}
    if origin is dict or getattr(origin, "__name__", "") == "Mapping":
        return {"type": "object", "additionalProperties": of(arguments[1])}
    if is_required_mark(origin):
        return of(arguments[0])
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if dataclasses.is_dataclass(kind) or is_typed_dict(kind):
        if kind in around:
            raise DeclarationError(f"{kind.__name__} contains itself: use a pydantic model for it, or give the schema itself")
        make_schema = _dataclass_schema if dataclasses.is_dataclass(kind) else _typed_dict_schema
        return make_schema(kind, lambda part: _schema_in(part, definitions, (*around, kind)))
    raise DeclarationError(f"no JSON Schema can be made of {kind!r}: use a dataclass, a TypedDict, a pydantic model, or give the schema itself")


def _unchanged(value: Any) -> Any:
    return value


def _pydantic_schema(kind: Any) -> Schema:
    schema: Schema = kind.model_json_schema()
    # Of a model that contains itself, only a reference is at the root.
    own = schema.get("$defs", {}).get(str(schema.get("$ref")).rpartition("/")[2], schema)
    if not getattr(kind, "model_config", {}).get("extra") and "properties" in own:
        # A mistyped name would otherwise be ignored.
        own.setdefault("additionalProperties", False)
    return schema


def _hoisted(schema: Schema, definitions: Schema) -> Schema:
    """The schema without its own definitions. They are added to the others, with other names when theirs are taken."""
    own = schema.pop("$defs", {})
    for number in itertools.count(1):
        names = {name: name if number == 1 else f"{name}_{number}" for name in own}
        references = {f"#/$defs/{name}": f"#/$defs/{other}" for name, other in names.items()}
        renamed = {names[name]: _with_references(definition, references) for name, definition in own.items()}
        if all(definitions.get(name, definition) == definition for name, definition in renamed.items()):
            break
    definitions.update(renamed)
    hoisted: Schema = _with_references(schema, references)
    return hoisted


def _with_references(value: Any, references: Dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _with_references(member, references) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_references(item, references) for item in value]
    return references.get(value, value) if isinstance(value, str) else value


def _object(kind: Any, properties: Schema, required: List[str]) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    text = (kind.__doc__ or "").strip()
    if text and not text.startswith(f"{kind.__name__}("):  # which is what a dataclass makes up
        schema["description"] = text
    return schema


def _dataclass_schema(kind: Any, schema_in: Callable[[Any], Schema]) -> Schema:
    hints, properties, required = hints_of(kind), {}, []
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        properties[field.name] = schema_in(hints[field.name])
        if field.default is not dataclasses.MISSING:
            from ._values import plain

            properties[field.name].setdefault("default", plain(field.default))
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return _object(kind, properties, required)


def _typed_dict_schema(kind: Any, schema_in: Callable[[Any], Schema]) -> Schema:
    hints = hints_of(kind)
    required = [name for name in hints if name in kind.__required_keys__]
    return _object(kind, {name: schema_in(hint) for name, hint in hints.items()}, required)


def result_of(kind: Any) -> Tuple[Optional[Schema], Callable[[Any], Any]]:
    """The schema of a result type, if it says anything, and what makes a value of it from JSON."""
    if isinstance(kind, dict):
        return kind, _unchanged
    if kind is None or kind is Any or kind is dict:
        return None, _unchanged
    try:
        return schema_of(kind), lambda value: make(kind, value)
    except DeclarationError:
        return None, _unchanged

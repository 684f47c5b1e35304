"""Schemas of types, and values of types that are made of JSON. Needs no other package."""

import contextlib
import dataclasses
import datetime
import enum
import pathlib
import sys
import threading
import unittest
from typing import Dict, List, Optional, Sequence, Tuple, Union

try:
    from typing import Annotated, Literal, TypedDict
except ImportError:  # pragma: no cover
    raise unittest.SkipTest("needs Python 3.9") from None

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "src"))

import ktrdr
from ktrdr._make import make
from ktrdr._schema import request_of, schema_of
from ktrdr._values import plain


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclasses.dataclass
class Part:
    name: str
    weight: float = 1.0


@dataclasses.dataclass
class Request:
    """What to do."""

    file: str
    top: Annotated[int, {"minimum": 1, "maximum": 10}] = 5
    mode: Mode = Mode.FAST
    since: Optional[datetime.date] = None
    parts: List[Part] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Node:
    name: str
    below: "List[Node]" = dataclasses.field(default_factory=list)


class Options(TypedDict):
    """Options."""

    kind: Literal["a", "b"]


def find_definitions(schema, is_root=True):
    """Those that are not at the root: nobody would find them."""
    members = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for name, member in members:
        if name == "$defs" and not is_root:
            yield member
        yield from find_definitions(member, is_root=False)


class Schemas(unittest.TestCase):
    def test_a_dataclass_has_a_schema_and_is_made_of_json(self):
        schema, make = request_of(Request)

        self.assertEqual(schema["description"], "What to do.")
        self.assertEqual(schema["required"], ["file"])
        self.assertIs(schema["additionalProperties"], False)
        self.assertEqual(
            schema["properties"]["top"], {"type": "integer", "minimum": 1, "maximum": 10, "default": 5}
        )
        self.assertEqual(schema["properties"]["mode"], {"enum": ["fast", "slow"], "default": "fast"})

        made = make({"file": "a", "top": 3.0, "mode": "slow", "since": "2026-01-02", "parts": [{"name": "x"}]})
        self.assertEqual(made, Request("a", 3, Mode.SLOW, datetime.date(2026, 1, 2), [Part("x", 1.0)]))
        self.assertIsInstance(made.top, int)

    def test_typed_dicts_unions_and_tuples(self):
        schema, make = request_of(Options)
        self.assertEqual(schema["properties"], {"kind": {"enum": ["a", "b"]}})
        self.assertEqual(make({"kind": "a"}), {"kind": "a"})
        self.assertEqual(schema_of(Union[int, str]), {"anyOf": [{"type": "integer"}, {"type": "string"}]})
        self.assertEqual(schema_of(Dict[str, int])["additionalProperties"], {"type": "integer"})
        self.assertEqual(schema_of(Tuple[int, ...]), {"type": "array", "items": {"type": "integer"}})
        with self.assertRaises(ktrdr.DeclarationError):
            schema_of(threading.Thread)

    def test_a_value_of_a_union_is_the_member_that_fits(self):
        @dataclasses.dataclass
        class Near:
            kind: Literal["near"]
            at: int = 0

        @dataclasses.dataclass
        class Far:
            kind: Literal["far"]
            at: int = 0

        def made_of(kind, value):
            return request_of(kind)[1](value)

        parts = {"a": {"name": "x"}}
        self.assertEqual(made_of(Optional[Dict[str, Part]], parts), {"a": Part("x")})
        self.assertIsNone(made_of(Optional[Dict[str, Part]], None))
        self.assertEqual(made_of(Union[Near, Far], {"kind": "far"}), Far("far"))
        self.assertEqual(made_of(Union[Part, Dict[str, Part]], parts), {"a": Part("x")})
        self.assertEqual(made_of(Union[int, pathlib.Path], "a/b"), pathlib.Path("a/b"))
        self.assertEqual(made_of(Union[int, float], 1.5), 1.5)
        self.assertEqual(made_of(Sequence[Part], [{"name": "x"}]), [Part("x")])
        for kind, wrong in [(int, "1"), (int, 1.5), (str, 1), (Part, {"nam": 1}), (Options, {}), (Union[int, str], [])]:
            with self.assertRaises(ValueError, msg=str(kind)):
                made_of(kind, wrong)

    def test_a_field_that_every_start_body_has_is_refused(self):
        @dataclasses.dataclass
        class Wrong:
            task_id: str

        with self.assertRaisesRegex(ktrdr.DeclarationError, "task_id"):

            @ktrdr.worker("wrong", request=Wrong)
            def wrong(ctx, request):
                pass

    def test_a_worker_says_what_the_function_says(self):
        @ktrdr.worker("word_count", max_attempts=2)
        def word_count(ctx: ktrdr.Context, request: Request) -> Part:
            """Counts words.

            Slowly.
            """
            return Part(request.file)

        self.assertEqual(word_count.description["description"], "Counts words.")
        self.assertEqual(word_count.description["max_attempts"], 2)
        self.assertEqual(word_count.description["result_schema"]["required"], ["name"])
        self.assertNotIn("domain", word_count.description)
        self.assertEqual(word_count(None, Request("a")), Part("a"))
        with self.assertRaises(ktrdr.DeclarationError):
            ktrdr.worker("Word Count")
        with self.assertRaises(ktrdr.DeclarationError):
            ktrdr.worker("one")(lambda ctx: None)

    def test_pydantic_models(self):
        try:
            import pydantic
        except ImportError:
            self.skipTest("there is no pydantic")

        class Model(pydantic.BaseModel):
            file: str
            top: int = pydantic.Field(10, ge=1)

        schema, make = request_of(Model)
        self.assertIs(schema["additionalProperties"], False)
        self.assertEqual(schema["properties"]["top"]["minimum"], 1)
        self.assertEqual(make({"file": "a"}), Model(file="a"))
        self.assertEqual(plain(Model(file="a")), {"file": "a", "top": 10})

        class Renamed(pydantic.BaseModel):
            first: int = pydantic.Field(alias="from")

        schema, make = request_of(Renamed)
        self.assertIn("from", schema["properties"])
        self.assertEqual(plain(make({"from": 7})), {"from": 7})


    def test_models_inside_other_types(self):
        try:
            import pydantic
        except ImportError:
            self.skipTest("there is no pydantic")

        class Inner(pydantic.BaseModel):
            at: int

        class Model(pydantic.BaseModel):
            inner: Inner

        class Tree(pydantic.BaseModel):
            children: List["Tree"] = []

        Tree.model_rebuild(_types_namespace={"Tree": Tree})
        other = pydantic.create_model("Model", inner=(pydantic.create_model("Inner", text=(str, ...)), ...))

        @dataclasses.dataclass
        class Both:
            first: Model
            second: other  # type: ignore[valid-type]
            more: Dict[str, Model]
            tree: Optional[Tree] = None

        Both.__annotations__.update(first=Model, second=other, more=Dict[str, Model], tree=Optional[Tree])
        value, second, tree = {"inner": {"at": 7}}, {"inner": {"text": "a"}}, {"children": [{"children": []}]}
        both = {"first": value, "second": second, "more": {"b": value}, "tree": tree}
        either = pydantic.RootModel[Union[Inner, Model]]
        for kind, given in [(List[Model], [value]), (Optional[Model], value), (Tree, tree), (either, value), (Both, both)]:
            schema = schema_of(kind)
            self.assertEqual(list(find_definitions(schema)), [])
            self.assertEqual(plain(make(kind, given)), given)
            with contextlib.suppress(ImportError):
                import jsonschema

                jsonschema.validate(given, schema)
        self.assertEqual(make(List[Model], [value]), [Model(inner=Inner(at=7))])
        try:
            import jsonschema
        except ImportError:
            return
        schema = schema_of(Both)
        for wrong in [
            {**both, "first": second},
            {**both, "second": value},
            {**both, "first": {**value, "mistyped": 1}},
        ]:
            with self.assertRaises(jsonschema.ValidationError):
                jsonschema.validate(wrong, schema)
        with self.assertRaises(jsonschema.ValidationError):
            jsonschema.validate({"childrenn": []}, schema_of(Tree))

    def test_a_type_that_contains_itself_is_refused(self):
        with self.assertRaisesRegex(ktrdr.DeclarationError, "Node contains itself"):
            schema_of(Node)
        self.assertEqual(schema_of(Tuple[Part, Part])["prefixItems"], [schema_of(Part)] * 2)

    def test_a_bare_list_has_items_of_any_type(self):
        for kind, schema, value in [
            (List, {"type": "array", "items": {}}, [1, "a"]),
            (Tuple, {"type": "array", "items": {}}, (1, "a")),
            (Dict, {"type": "object", "additionalProperties": {}}, {"a": 1}),
        ]:
            self.assertEqual(schema_of(kind), schema)
            self.assertEqual(make(kind, list(value) if isinstance(value, tuple) else value), value)

    def test_a_time_has_any_number_of_digits(self):
        expected = datetime.datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=datetime.timezone.utc)
        for text in ("2026-01-02T03:04:05.12Z", "2026-01-02t03:04:05.120000999z", "2026-01-02T04:04:05.1200+01:00"):
            self.assertEqual(make(datetime.datetime, text), expected)

    def test_a_mark_of_typing_extensions_is_one(self):
        try:
            import typing_extensions
        except ImportError:
            self.skipTest("typing_extensions is not installed")

        kind = typing_extensions.TypedDict("kind", {"a": int, "b": typing_extensions.NotRequired[int]})
        schema = schema_of(kind)
        self.assertEqual((schema["properties"]["b"], schema["required"]), ({"type": "integer"}, ["a"]))
        self.assertEqual(make(kind, {"a": 1}), {"a": 1})


if __name__ == "__main__":
    unittest.main()

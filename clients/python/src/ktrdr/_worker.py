"""`@ktrdr.worker`: a function as a worker."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from typing import Any, Awaitable, Callable, Dict, Generic, Optional, TypeVar, Union, overload

from ._context import Context
from ._errors import DeclarationError
from ._schema import request_of, result_of

__all__ = ["Worker", "worker"]

Request = TypeVar("Request")
Result = TypeVar("Result")
#: Where a result or an error is wanted, a worker fits that makes the result.
Made = TypeVar("Made", covariant=True)


class Worker(Generic[Request, Made]):
    """A function with what a worker says about itself. Calling it calls the function."""

    def __init__(
        self,
        function: Callable[..., Any],
        description: Dict[str, Any],
        request: Any = None,
        result: Any = None,
        interrupt: bool = False,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.interrupt = interrupt
        if interrupt and self.is_async:
            raise DeclarationError(f"{function.__name__} is async and is cancelled at its next await: leave interrupt out")
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) != 2:
            raise DeclarationError(f"{function.__name__} must take two parameters, the context and the request; it takes {parameters}")
        if request is None:
            request = hints.get(parameters[1])
        request_schema, self._make_request = request_of(request)
        result_schema, self._make_result = result_of(hints.get("return") if result is None else result)
        self.description = {key: value for key, value in description.items() if value is not None}
        self.description["request_schema"] = request_schema
        if result_schema is not None:
            self.description["result_schema"] = result_schema

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)

    def __repr__(self) -> str:
        return f"<ktrdr.Worker {self.worker_type}>"

    @property
    def worker_type(self) -> str:
        """The worker type."""
        return str(self.description["worker_type"])

    @property
    def domain(self) -> str:
        """The path segment of its start route."""
        return str(self.description.get("domain") or self.worker_type.replace("_", "-"))

    def request(self, parameters: Any) -> Request:
        """The request that these parameters are."""
        made: Request = self._make_request(parameters)
        return made

    def result(self, value: Any) -> Made:
        """The result that this JSON is: a value of the type that the function returns."""
        made: Made = self._make_result(value)
        return made


class _Decorator(typing.Protocol):
    # An async function matches both; the first one counts.
    @overload
    def __call__(self, function: Callable[[Context, Request], Awaitable[Result]]) -> Worker[Request, Result]: ...  # type: ignore[overload-overlap,unused-ignore]
    @overload
    def __call__(self, function: Callable[[Context, Request], Result]) -> Worker[Request, Result]: ...


def worker(
    worker_type: str,
    *,
    domain: Optional[str] = None,
    description: Optional[str] = None,
    short: Optional[str] = None,
    version: Optional[str] = None,
    request: Any = None,
    result: Any = None,
    uses_gpu: Union[bool, str] = False,
    interrupt: bool = False,
    timeout: Optional[float] = None,
    stall_timeout: Optional[float] = None,
    max_attempts: Optional[int] = None,
    retry_delay: Optional[float] = None,
) -> _Decorator:
    """Makes a worker of a function `(context, request)`, also of an `async` one.

    The request is a pydantic model, a dataclass, a `TypedDict` or a `dict`: the annotation of the parameter, or `request`, which may
    also be a JSON Schema. Backends check start requests against it. `uses_gpu="torch"` asks torch whether there is one. Times are in
    seconds.

    With `interrupt`, a cancel raises `Cancelled` in whatever line of Python the function is at, also in one that never looks. Use it for
    code that may stop anywhere.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,127}", worker_type):
        raise DeclarationError(f"{worker_type!r} is no worker type: use a lower-case name such as 'word_count'")

    def decorate(function: Callable[..., Any]) -> Worker[Any, Any]:
        text = description
        if text is None:
            text = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ") or None
        said = {
            "worker_type": worker_type,
            "domain": domain,
            "short": short,
            "description": text,
            "version": version,
            "uses_gpu": uses_gpu,
            "timeout_seconds": timeout,
            "stall_timeout_seconds": stall_timeout,
            "max_attempts": max_attempts,
            "retry_delay_seconds": retry_delay,
        }
        return Worker(function, said, request, result, interrupt)

    return decorate

"""The calls of a client, without input and output.

A call is a generator. It yields what is to be done (`Request`, `Pause`, …), is sent the outcome, and returns what the call returns. So
the rules (what is repeated and for how long, which page comes next, where a stream goes on) stand here once, and `sync.py` and
`asynchronous.py` only carry them out.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
import re
import time
import uuid
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union
from urllib.parse import quote

from .._values import plain, to_json
from .._worker import Worker
from .bar import Bar
from .errors import ApiError, ClientError, OperationCancelled, OperationFailed, StartsRefused, Unreachable
from .metrics import Metrics
from .sse import Parser

__all__ = ["Answer", "Calls", "Close", "Effect", "Item", "Next", "Open", "Pause", "Request"]

T = TypeVar("T")

#: How long the backend holds one request of a wait, in seconds; shorter when somebody looks at the progress.
WAIT = 30.0
LOOK = 1.0

#: How long an answer may take, without the time that the backend holds it, and how long a stream of events may be silent: the backend
#: sends a comment every 15 seconds.
TIMEOUT = 30.0
SILENCE = 45.0

#: How long after the time of a wait its last answer may come, in seconds.
GRACE = 1.0

#: Pause before a request is repeated for the first time, in seconds; it doubles with each repetition.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0

#: Operations on a page of a list, metric points of one request, starts of one request.
PAGE = 200
POINTS = 10_000
STARTS = 1000

#: Bytes of the start bodies of one request, about. A backend takes 16 MiB.
STARTS_BYTES = 8 * 1024 * 1024

#: Statuses after which nothing follows.
TERMINAL = ("completed", "failed", "cancelled")


@dataclasses.dataclass(frozen=True)
class Request:
    """To be sent. The outcome is an `Answer`; `Unreachable` is thrown when there is none."""

    method: str
    path: str
    query: Sequence[Tuple[str, str]] = ()
    body: Optional[str] = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    timeout: float = TIMEOUT


@dataclasses.dataclass(frozen=True)
class Open:
    """To be sent. The body is left in the connection, for `Next`, unless it is an error."""

    request: Request


@dataclasses.dataclass(frozen=True)
class Next:
    """The next piece of text of what was opened; None at its end."""


@dataclasses.dataclass(frozen=True)
class Close:
    """What was opened is not needed any more."""


@dataclasses.dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Item:
    """To be handed to the caller of an iterator."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back. The names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        """Not so for one that sends elsewhere: nothing was done there."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise _unexpected("is no JSON", self.body) from None

    def document(self) -> "Document":
        """The body, which is an object."""
        return _object(self.json(), self.body)

    def data(self) -> "Document":
        """Its member `data`, which is an object."""
        return _object(self.document()["data"], self.body)


class Document(Dict[str, Any]):
    """An answer. A member that it must have and has not is a fault of the answer."""

    def __missing__(self, name: str) -> Any:
        raise _unexpected(f"has no {name!r}", to_json(self).encode("utf-8", "replace"))


def _object(value: Any, body: bytes) -> Document:
    if not isinstance(value, dict):
        raise _unexpected("is not what it should be", body)
    return Document(value)


def _unexpected(what: str, body: bytes) -> ClientError:
    return ClientError(f"the answer {what}: {body[:200]!r}; is there a KTRDR backend at this address?")


Effect = Union[Request, Open, Next, Close, Pause, Item]
Call = Generator[Effect, Any, T]
Take = Callable[[Dict[str, Any]], None]


class _Patience:
    """For how long something is repeated, and how long the pauses are."""

    def __init__(self, seconds: float, end: Optional[float] = None) -> None:
        self._seconds = seconds if end is None else min(seconds, end - time.monotonic())
        self.reset()

    def reset(self) -> None:
        self._give_up_at = time.monotonic() + self._seconds
        self._pause = FIRST_PAUSE

    def pause_after(self, error: Union[ApiError, Unreachable]) -> Pause:
        """The pause before the next try. Raises the error when there is none."""
        if isinstance(error, ApiError):
            is_passing, wanted = error.is_passing, error.retry_after or 0.0
        else:
            is_passing, wanted = not error.is_lasting, 0.0
        seconds = max(wanted, self._pause * random.uniform(0.5, 1.0))
        if not is_passing or time.monotonic() + seconds > self._give_up_at:
            raise error
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return Pause(seconds)


class Calls:
    """One method for each call."""

    def __init__(self, patience: float) -> None:
        self._seconds = patience

    # ------------------------------------------------------------ requests

    def send(self, request: Request, end: Optional[float] = None) -> Call[Answer]:
        """A request, repeated while the backend or NATS is not reachable. Every request here may be sent twice: a start has an id,
        and the others change nothing more the second time. Nothing begins after `end`, a time of `time.monotonic`."""
        patience = _Patience(self._seconds, end)
        while True:
            try:
                answer: Answer = yield request
                if answer.is_success:
                    return answer
                raise ApiError.read(answer.status, answer.body, answer.headers)
            except (ApiError, Unreachable) as error:
                pause = patience.pause_after(error)
            yield pause

    def document(self, method: str, *path: str, body: Any = None, **more: Any) -> Call[Document]:
        """The document that answers a request."""
        text = None if body is None else to_json(body)
        answer = yield from self.send(Request(method, _path(*path), body=text, **more))
        return answer.document()

    def data(self, method: str, *path: str, body: Any = None, **more: Any) -> Call[Document]:
        """The member `data` of it."""
        text = None if body is None else to_json(body)
        answer = yield from self.send(Request(method, _path(*path), body=text, **more))
        return answer.data()

    # ------------------------------------------------------------ starts

    def start(
        self,
        what: Union[str, Worker[Any, Any]],
        request: Any,
        task_id: Optional[str],
        idempotency_key: Optional[str],
        execution: Mapping[str, Any],
    ) -> Call[Dict[str, Any]]:
        """The answer to a start."""
        body, headers = start_body(request, execution), {}
        if idempotency_key is not None:
            headers["idempotency-key"] = _header("idempotency_key", idempotency_key)
        if task_id is not None or idempotency_key is None:
            # A request that is a whole start body has an id of its own.
            body["task_id"] = task_id or body.get("task_id") or _new_id()
        answer = yield from self.document("POST", domain_of(what), "start", body=body, headers=headers)
        return answer

    def start_many(
        self,
        what: Union[str, Worker[Any, Any]],
        requests: Iterable[Any],
        task_ids: Optional[Sequence[str]],
        execution: Mapping[str, Any],
    ) -> Call[List[Union[Dict[str, Any], ApiError]]]:
        """The answer to each start, or why it was refused."""
        bodies = [start_body(request, execution) for request in requests]
        if task_ids is not None and len(task_ids) != len(bodies):
            raise ValueError(f"there are {len(task_ids)} task_ids and {len(bodies)} requests")
        for place, body in enumerate(bodies):
            body["task_id"] = task_ids[place] if task_ids is not None else body.get("task_id") or _new_id()

        outcomes: List[Union[Dict[str, Any], ApiError]] = []
        try:
            for part in _parts(bodies):
                outcomes += yield from self._start_some(domain_of(what), part)
        except ClientError as error:
            # The caller learns what has started. A start with the same id is harmless.
            error.outcomes, error.task_ids = outcomes, [body["task_id"] for body in bodies]
            raise
        return outcomes

    def _start_some(self, domain: str, bodies: List[Dict[str, Any]]) -> Call[List[Union[Dict[str, Any], ApiError]]]:
        """Repeats those that were refused for a reason that passes."""
        patience = _Patience(self._seconds)
        outcomes: Dict[int, Union[Dict[str, Any], ApiError]] = {}
        while True:
            places = [place for place in range(len(bodies)) if _is_passing(outcomes.get(place))]
            body = {"operations": [bodies[place] for place in places]}
            data = yield from self.data("POST", domain, "start-many", body=body, timeout=2 * TIMEOUT)
            for place, result in zip(places, data["results"]):
                outcomes[place] = result if result["status_code"] < 300 else ApiError(result["status_code"], result)

            again = [outcome for outcome in outcomes.values() if isinstance(outcome, ApiError) and outcome.is_passing]
            if not again:
                return [outcomes[place] for place in range(len(bodies))]
            try:
                pause = patience.pause_after(again[0])
            except ApiError:
                return [outcomes[place] for place in range(len(bodies))]
            yield pause

    # ------------------------------------------------------------ one operation

    def wait(self, operation_id: str, timeout: Optional[float], bar: Optional[Bar], take: Take) -> Call[Dict[str, Any]]:
        """The operation, once it has ended. `take` gets every document of it, also when the wait fails."""
        return (yield from self._wait(operation_id, timeout, _end_of(timeout), bar, take))

    def _wait(
        self, operation_id: str, timeout: Optional[float], end: Optional[float], bar: Optional[Bar], take: Take
    ) -> Call[Dict[str, Any]]:
        late = f"{operation_id} has not ended after {timeout} s; it goes on"
        while True:
            seconds = WAIT if bar is None else LOOK
            if end is not None:
                seconds = max(0.0, min(seconds, end - time.monotonic()))
            query = [("wait", f"{seconds:.3f}")]
            answer = yield from self._until(end, late, seconds + TIMEOUT, "operations", operation_id, query=query)

            data = answer.data()
            take(data)
            if bar is not None:
                bar.show(data)
            if data["status"] in TERMINAL:
                return data
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"{operation_id} is {data['status']} after {timeout} s; it goes on")

    def _until(
        self, end: Optional[float], late: str, timeout: float, *path: str, query: Sequence[Tuple[str, str]] = ()
    ) -> Call[Answer]:
        """What is there, asked for until this time. Raises `TimeoutError` when no answer came by then, because of the error that the
        last try met."""
        is_short = False
        if end is not None:
            left = max(0.0, end - time.monotonic())
            timeout, is_short = min(timeout, left + GRACE), left <= self._seconds
        try:
            return (yield from self.send(Request("GET", _path(*path), query, timeout=timeout), end))
        except (ApiError, Unreachable) as error:
            passes = error.is_passing if isinstance(error, ApiError) else not error.is_lasting
            if is_short and passes:
                raise TimeoutError(f"{late}: {error}") from error
            raise

    def result(self, operation_id: str, timeout: Optional[float], bar: Optional[Bar], take: Take) -> Call[Any]:
        """The result, once the operation has completed. `take` gets every document of it, also when it fails."""
        end = _end_of(timeout)
        operation = yield from self._wait(operation_id, timeout, end, bar, take)
        if operation["status"] == "failed":
            raise OperationFailed(operation)
        if operation["status"] == "cancelled":
            raise OperationCancelled(operation)
        result = operation.get("result")
        if result is None:  # it is large, or it is null
            late = f"the result of {operation_id} was not read after {timeout} s"
            answer = yield from self._until(end, late, 4 * TIMEOUT, "operations", operation_id, "results")
            result = answer.document()["data"]
        return result

    def cancel(self, operation_id: str, reason: Optional[str], wait: Optional[float]) -> Call[Dict[str, Any]]:
        query = [("reason", reason)] if reason is not None else []
        if wait is not None:
            query.append(("wait_seconds", str(wait)))
        timeout = (wait or 2.0) + TIMEOUT
        answer = yield from self.document("DELETE", "operations", operation_id, "cancel", query=query, timeout=timeout)
        # The other members are about the answer.
        return {name: answer.get(name) for name in ("operation_id", "status", "cancel_requested_at")}

    def repeat(self, operation_id: str, how: str) -> Call[Dict[str, Any]]:
        """`retry` or `resume`; the answer is that to a start."""
        headers = {"idempotency-key": _new_id()}
        answer = yield from self.document("POST", "operations", operation_id, how, headers=headers)
        return answer

    def logs(self, operation_id: str, level: Optional[str]) -> Call[List[Dict[str, Any]]]:
        lines: List[Dict[str, Any]] = []
        query = [("limit", "10000")] + ([("level", level)] if level is not None else [])
        cursor: List[Tuple[str, str]] = []
        while True:
            page = yield from self.data("GET", "operations", operation_id, "logs", query=query + cursor)
            lines += page["lines"]
            if not page["has_more"]:
                return lines
            cursor = [("cursor", page["cursor"])]

    def metrics(self, operation_id: str, names: Sequence[str]) -> Call[Metrics]:
        points, cursor = Metrics(), None
        while True:
            query = [("limit", str(POINTS)), *(("name", name) for name in names)]
            if cursor is not None:
                query.append(("cursor", cursor))
            page = yield from self.data("GET", "operations", operation_id, "metrics", query=query)
            points += page["metrics"]
            cursor = page["cursor"]
            if not page["has_more"]:
                return points

    # ------------------------------------------------------------ live events

    def events(self, *path: str, query: Sequence[Tuple[str, str]] = (), last_event_id: Optional[str] = None) -> Call[None]:
        """Each event as an item. Goes on where it was when the connection is lost, and ends with the operation."""
        patience = _Patience(self._seconds)
        last_id = None if last_event_id is None else _header("last_event_id", last_event_id)
        while True:
            headers = {"accept": "text/event-stream"}
            if last_id is not None:
                headers["last-event-id"] = last_id
            try:
                answer: Answer = yield Open(Request("GET", _path(*path), query, headers=headers, timeout=SILENCE))
                if not answer.is_success:
                    raise ApiError.read(answer.status, answer.body, answer.headers)
                if answer.status == 204:
                    return

                parser, text = Parser(), (yield Next())
                while text is not None:
                    patience.reset()
                    for event in parser.feed(text):
                        # The first event of a stream may be one that was seen already.
                        if event.id is None or event.id != last_id:
                            yield Item(event)
                        last_id = event.id or last_id
                        if event.is_end and path[0] == "operations":
                            yield Close()
                            return
                    text = yield Next()
                raise Unreachable("the stream of events has ended")
            except (ApiError, Unreachable) as error:
                pause = patience.pause_after(error)
            yield Close()
            yield pause

    # ------------------------------------------------------------ lists

    def list(self, filters: Mapping[str, Any], limit: Optional[int], oldest_first: bool, results: bool) -> Call[None]:
        """Each operation as an item, page by page."""
        fixed = filter_pairs(filters)
        if oldest_first:
            fixed.append(("order", "oldest"))
        if results:
            fixed.append(("include", "result"))
        left, cursor = limit, None
        while left is None or left > 0:
            query = [*fixed, ("limit", str(PAGE if left is None else min(PAGE, left)))]
            if cursor is not None:
                query.append(("cursor", cursor))
            page = yield from self.data("GET", "operations", query=query)
            for operation in page["operations"]:
                yield Item(operation)
            if left is not None:
                left -= len(page["operations"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def by_filter(self, how: str, filters: Mapping[str, Any], limit: int, dry_run: bool) -> Call[Dict[str, Any]]:
        """`cancel` or `retry`."""
        body = {"filter": filter_members(filters), "limit": limit, "dry_run": dry_run}
        headers = {"idempotency-key": _new_id()}
        data = yield from self.data("POST", "operations", how, body=body, headers=headers, timeout=4 * TIMEOUT)
        return data

    def workers(self, worker_type: Optional[str], status: Optional[str]) -> Call[List[Dict[str, Any]]]:
        wanted = [("worker_type", worker_type), ("status", status)]
        fixed = [(name, value) for name, value in wanted if value is not None]
        found: Dict[str, Dict[str, Any]] = {}
        offset = 0
        while True:
            query = [*fixed, ("offset", str(offset))]
            answer = yield from self.send(Request("GET", _path("workers"), query))
            page = answer.json()
            if not isinstance(page, list):
                raise _unexpected("is no list", answer.body)
            # Workers may have come since the page before, and moved the others.
            found.update((worker["worker_id"], worker) for worker in page)
            offset += len(page)
            if "link" not in answer.headers or not page:
                return list(found.values())

    # ------------------------------------------------------------ queues and schedules

    def pause(self, worker_type: str, until: Optional[datetime.datetime]) -> Call[Dict[str, Any]]:
        body = {"until": None if until is None else _time(until)}
        data = yield from self.data("POST", "queues", worker_type, "pause", body=body)
        return data

    def put_schedule(
        self,
        schedule_id: str,
        what: Union[str, Worker[Any, Any]],
        request: Any,
        definition: Mapping[str, Any],
        execution: Mapping[str, Any],
    ) -> Call[Dict[str, Any]]:
        body = {"domain": domain_of(what), "body": start_body(request, execution), **definition}
        data = yield from self.data("PUT", "schedules", schedule_id, body=body)
        return data

    def delete_schedule(self, schedule_id: str) -> Call[None]:
        """Deletes it. That it is not there is an error only of the first try: an earlier one may have deleted it, and its answer was lost."""
        patience, is_first = _Patience(self._seconds), True
        while True:
            try:
                answer: Answer = yield Request("DELETE", _path("schedules", schedule_id))
                if answer.is_success or not is_first and answer.status == 404:
                    return
                raise ApiError.read(answer.status, answer.body, answer.headers)
            except (ApiError, Unreachable) as error:
                pause = patience.pause_after(error)
            is_first = False
            yield pause

    def run_schedule(self, schedule_id: str) -> Call[Dict[str, Any]]:
        headers = {"idempotency-key": _new_id()}
        answer = yield from self.document("POST", "schedules", schedule_id, "run", headers=headers)
        return answer


def _parts(bodies: Sequence[Dict[str, Any]]) -> Iterator[List[Dict[str, Any]]]:
    """The bodies of each request."""
    part: List[Dict[str, Any]] = []
    length = 0
    for body in bodies:
        own = len(to_json(body).encode("utf-8", "replace"))
        if part and (len(part) == STARTS or length + own > STARTS_BYTES):
            yield part
            part, length = [], 0
        part.append(body)
        length += own
    if part:
        yield part


def refused_among(outcomes: Sequence[Union[Dict[str, Any], ApiError]], operations: List[Any]) -> None:
    """Raises when one of the starts was refused."""
    errors = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, ApiError)}
    if errors:
        raise StartsRefused(errors, operations)


def domain_of(what: Union[str, Worker[Any, Any]]) -> str:
    return what.domain if isinstance(what, Worker) else what


def start_body(request: Any, execution: Mapping[str, Any]) -> Dict[str, Any]:
    """Parameters and execution options as a backend takes them."""
    body = {} if request is None else plain(request)
    if not isinstance(body, dict):
        raise TypeError(f"a request is an object, as a dict, a dataclass or a pydantic model: {request!r:.100}")
    options = {name: _time(value) if isinstance(value, datetime.datetime) else plain(value) for name, value in execution.items()}
    if not options:
        return dict(body)
    own = body.get("execution") or {}
    if not isinstance(own, dict):
        raise TypeError(f"execution is an object: {own!r:.100}")
    return {**body, "execution": {**own, **options}}


def filter_pairs(filters: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """Filters as query parameters."""
    pairs: List[Tuple[str, str]] = []
    for name, value in filter_members(filters).items():
        pairs += [(name, item) for item in (value if isinstance(value, list) else [value])]
    return pairs


def filter_members(filters: Mapping[str, Any]) -> Dict[str, Any]:
    """Filters as the members of a body."""
    members: Dict[str, Any] = {}
    for name, value in filters.items():
        if value is None:
            continue
        if name == "labels":
            members["label"] = [f"{label}:{text}" for label, text in value.items()]
        elif name in ("status", "operation_type", "error_code"):
            members[name] = [value] if isinstance(value, str) else [str(item) for item in value]
        else:
            members[name] = _time(value) if isinstance(value, datetime.datetime) else str(value)
    return members


def _time(value: datetime.datetime) -> str:
    """RFC 3339. A time without a zone is one of this machine."""
    return value.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z")


def _end_of(timeout: Optional[float]) -> Optional[float]:
    return None if timeout is None else time.monotonic() + timeout


def _is_passing(outcome: Union[None, Dict[str, Any], ApiError]) -> bool:
    return outcome is None or isinstance(outcome, ApiError) and outcome.is_passing


def _new_id() -> str:
    return str(uuid.uuid4())


def _header(name: str, value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
        raise ValueError(f"{name} cannot be sent: {value!r:.100} is empty, or has characters that no header can hold")
    return value


def _path(*parts: str) -> str:
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)

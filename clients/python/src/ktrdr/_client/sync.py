"""The client, for code that waits."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import datetime
import itertools
import threading
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    Generator,
    Iterable,
    Iterator,
    List,
    Literal,
    Optional,
    Sequence,
    Set,
    Type,
    TypeVar,
    Union,
    overload,
)

import httpx

from .._worker import Worker
from .bar import bar
from .calls import Answer, Call, Calls, Close, Effect, Item, Next, Open, Pause, Request, refused_among
from .connection import BaseOperation, Settings, Verify, built, failed
from .errors import ApiError, ClientError
from .metrics import Metrics
from .options import Execution, Filter
from .sse import Event

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["Client", "Operation"]

T = TypeVar("T")
Parameters = TypeVar("Parameters")
Result = TypeVar("Result")

#: How long a thread of `map` waits before it looks whether it is still needed, in seconds.
STAY = 5.0


class Client:
    """A client of one backend. Any number of threads may use it.

    ```python
    with ktrdr.Client() as client:
        operation = client.start("training", {"symbol": "GOOG", "timeframe": "1d"})
        print(operation.result(progress=True))
    ```

    `url` and `token` are those of the variables `KTRDR_URL` and `KTRDR_TOKEN` unless given; without both, the address is
    `http://127.0.0.1:8000`. `verify` is the path of a file with certificates of authorities, an `ssl.SSLContext`, or `False`, which
    trusts everybody.

    A request is repeated for up to `patience` seconds while the backend is not reachable or says that it will be able to answer
    later. That starts nothing twice, because the client chooses the id of an operation before it sends the start.

    Calls raise `Unreachable` and `ApiError`, and those that return a result also `OperationFailed` and `OperationCancelled`. All of
    them are `ClientError`s.
    """

    def __init__(
        self, url: Optional[str] = None, *, token: Optional[str] = None, verify: Verify = True, patience: float = 30.0
    ) -> None:
        settings = Settings(url, token, verify)
        #: The address of the backend.
        self.url = settings.url
        self._http = httpx.Client(**settings.of_httpx())
        self._calls, self._patience = Calls(patience), patience

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ktrdr.Client {self.url}>"

    def _run(self, call: Call[T]) -> T:
        return _Runner(self._http, self.url).run(call)

    def _iterate(self, call: Call[None]) -> Iterator[Any]:
        return _Runner(self._http, self.url).iterate(call)

    # ------------------------------------------------------------ starts

    @overload
    def start(
        self,
        what: Worker[Parameters, Result],
        request: Parameters,
        *,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> "Operation[Result]": ...
    @overload
    def start(
        self,
        what: str,
        request: Any = None,
        *,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> "Operation[Any]": ...
    def start(
        self,
        what: Union[str, Worker[Any, Any]],
        request: Any = None,
        *,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> "Operation[Any]":
        """Starts an operation.

        `what` is the domain, or a worker's function: then its result comes as the type that the function returns. A start with a
        `task_id` or an `idempotency_key` that was used before starts nothing and returns the first operation; with another request
        it raises `ApiError` (`idempotency_mismatch`). Further arguments are execution options: `priority=1`,
        `labels={"symbol": "GOOG"}`, `requirements={"gpu": True}`, `timeout_seconds=3600`, …
        """
        answer = self._run(self._calls.start(what, request, task_id, idempotency_key, execution))
        return self._operation(answer, what)

    @overload
    def run(
        self,
        what: Worker[Parameters, Result],
        request: Parameters,
        *,
        progress: bool = False,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> Result: ...
    @overload
    def run(
        self,
        what: str,
        request: Any = None,
        *,
        progress: bool = False,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> Any: ...
    def run(
        self,
        what: Union[str, Worker[Any, Any]],
        request: Any = None,
        *,
        progress: bool = False,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> Any:
        """Starts an operation and returns its result."""
        answer = self._run(self._calls.start(what, request, task_id, idempotency_key, execution))
        return self._operation(answer, what).result(progress=progress)

    @overload
    def start_many(
        self,
        what: Worker[Parameters, Result],
        requests: Iterable[Parameters],
        *,
        task_ids: Optional[Sequence[str]] = None,
        **execution: "Unpack[Execution]",
    ) -> "List[Operation[Result]]": ...
    @overload
    def start_many(
        self,
        what: str,
        requests: Iterable[Any],
        *,
        task_ids: Optional[Sequence[str]] = None,
        **execution: "Unpack[Execution]",
    ) -> "List[Operation[Any]]": ...
    def start_many(
        self,
        what: Union[str, Worker[Any, Any]],
        requests: Iterable[Any],
        *,
        task_ids: Optional[Sequence[str]] = None,
        **execution: "Unpack[Execution]",
    ) -> "List[Operation[Any]]":
        """Starts an operation for each request, a thousand in one request to the backend, and returns them in the same order.

        Raises `StartsRefused` when some were refused; it has the others, which were started.
        Another `ClientError` ends the call early: its `outcomes` are the answers until then, its `task_ids` the ids of all starts.
        """
        outcomes = self._run(self._calls.start_many(what, requests, task_ids, execution))
        operations = [None if isinstance(outcome, ApiError) else self._operation(outcome, what) for outcome in outcomes]
        refused_among(outcomes, operations)
        return [operation for operation in operations if operation is not None]

    @overload
    def map(
        self,
        what: Worker[Parameters, Result],
        requests: Iterable[Parameters],
        *,
        concurrency: int = 16,
        return_errors: Literal[False] = False,
        execution: Optional[Execution] = None,
    ) -> Iterator[Result]: ...
    @overload
    def map(
        self,
        what: Worker[Parameters, Result],
        requests: Iterable[Parameters],
        *,
        concurrency: int = 16,
        return_errors: bool,
        execution: Optional[Execution] = None,
    ) -> Iterator[Union[Result, ClientError]]: ...
    @overload
    def map(
        self,
        what: str,
        requests: Iterable[Any],
        *,
        concurrency: int = 16,
        return_errors: bool = False,
        execution: Optional[Execution] = None,
    ) -> Iterator[Any]: ...
    def map(
        self,
        what: Union[str, Worker[Any, Any]],
        requests: Iterable[Any],
        *,
        concurrency: int = 16,
        return_errors: bool = False,
        execution: Optional[Execution] = None,
    ) -> Iterator[Any]:
        """The results for these requests, in their order, with at most `concurrency` operations open at a time.

        Requests are taken as they are needed, so they may come from a generator. A result that comes before an earlier one is kept
        until its turn: while one operation takes long, those of all that end meanwhile are in memory. An operation that fails raises at its place; with
        `return_errors`, its error is there instead of a result. What has been started when the loop is left goes on.
        """

        def one(request: Any, is_left: threading.Event) -> Any:
            try:
                answer = self._run(self._calls.start(what, request, None, None, execution or {}))
                return _result_of(self._operation(answer, what), is_left, self._patience)
            except ClientError as error:
                if return_errors:
                    return error
                raise

        if concurrency < 1:
            raise ValueError("concurrency is at least 1")
        return _in_order(one, requests, concurrency)

    def _operation(self, document: Dict[str, Any], what: Any = None) -> "Operation[Any]":
        return Operation(self, document, what if isinstance(what, Worker) else None)

    # ------------------------------------------------------------ operations

    def operation(self, operation_id: str) -> "Operation[Any]":
        """An operation by its id."""
        return self._operation(self._run(self._calls.data("GET", "operations", operation_id)))

    def list(
        self,
        *,
        limit: Optional[int] = None,
        oldest_first: bool = False,
        results: bool = False,
        **filters: "Unpack[Filter]",
    ) -> "Iterator[Operation[Any]]":
        """The operations that match, newest first, page by page: `status="failed"`, `labels={"symbol": "GOOG"}`,
        `created_after=datetime(…)`, …

        Their documents have no results, unless `results` is set, and only small parameters.
        """
        for document in self._iterate(self._calls.list(filters, limit, oldest_first, results)):
            yield self._operation(document)

    def cancel_all(self, *, limit: int = 1000, dry_run: bool = False, **filters: "Unpack[Filter]") -> Dict[str, Any]:
        """Cancels the operations that match, without waiting for workers: `matched`, `done`, `has_more` and `results`. In a dry run
        nothing changes. At least one filter is needed."""
        return self._run(self._calls.by_filter("cancel", filters, limit, dry_run))

    def retry_all(self, *, limit: int = 1000, dry_run: bool = False, **filters: "Unpack[Filter]") -> Dict[str, Any]:
        """Runs the failed and cancelled operations that match again, as new operations; answers like `cancel_all`."""
        return self._run(self._calls.by_filter("retry", filters, limit, dry_run))

    def events(
        self,
        *,
        operation_type: Optional[str] = None,
        worker_type: Optional[str] = None,
        last_event_id: Optional[str] = None,
    ) -> Iterator[Event]:
        """The live events of all operations and workers, without end. Goes on where it was when the connection was lost; an event
        `reset` says that some were missed. `last_event_id` goes on after an event of an earlier stream."""
        wanted = [("operation_type", operation_type), ("worker_type", worker_type)]
        query = [(name, value) for name, value in wanted if value is not None]
        return self._iterate(self._calls.events("events", query=query, last_event_id=last_event_id))

    # ------------------------------------------------------------ the system

    def stats(self) -> Dict[str, Any]:
        """Figures of the whole system."""
        return dict(self._run(self._calls.data("GET", "stats")))

    def worker_types(self) -> List[Dict[str, Any]]:
        """What can be started: the worker types with their schemas."""
        return list(self._run(self._calls.data("GET", "worker-types"))["worker_types"])

    def workers(self, *, worker_type: Optional[str] = None, status: Optional[str] = None) -> List[Dict[str, Any]]:
        """The workers that are alive or were a moment ago."""
        return self._run(self._calls.workers(worker_type, status))

    def drain(self, worker_id: str) -> Dict[str, Any]:
        """Lets a worker finish what it runs, and take nothing more."""
        return dict(self._run(self._calls.data("POST", "workers", worker_id, "drain")))

    def undrain(self, worker_id: str) -> Dict[str, Any]:
        """Lets a drained worker go on."""
        return dict(self._run(self._calls.data("POST", "workers", worker_id, "undrain")))

    def queues(self) -> List[Dict[str, Any]]:
        """What waits and runs, by worker type, queue and priority."""
        return list(self._run(self._calls.data("GET", "queues"))["queues"])

    def pause(self, worker_type: str, *, until: Optional[datetime.datetime] = None) -> Dict[str, Any]:
        """Lets no operation of this worker type start, until then or until `resume`. What runs goes on."""
        return self._run(self._calls.pause(worker_type, until))

    def resume(self, worker_type: str) -> Dict[str, Any]:
        """Ends a pause."""
        return dict(self._run(self._calls.data("POST", "queues", worker_type, "resume")))

    # ------------------------------------------------------------ schedules

    def schedules(self) -> List[Dict[str, Any]]:
        """All schedules."""
        return list(self._run(self._calls.data("GET", "schedules"))["schedules"])

    def schedule(self, schedule_id: str) -> Dict[str, Any]:
        """One schedule: its definition, `next_runs`, `last_run`, `last_error`."""
        return dict(self._run(self._calls.data("GET", "schedules", schedule_id)))

    def put_schedule(
        self,
        schedule_id: str,
        what: Union[str, Worker[Any, Any]],
        request: Any = None,
        *,
        cron: str,
        time_zone: str = "UTC",
        overlap: str = "skip",
        catch_up: str = "skip",
        paused: bool = False,
        **execution: "Unpack[Execution]",
    ) -> Dict[str, Any]:
        """Makes or changes a schedule, which starts an operation at each slot of a cron line."""
        definition = {"cron": cron, "time_zone": time_zone, "overlap": overlap, "catch_up": catch_up, "paused": paused}
        return self._run(self._calls.put_schedule(schedule_id, what, request, definition, execution))

    def pause_schedule(self, schedule_id: str) -> Dict[str, Any]:
        """Lets a schedule start nothing until it is resumed."""
        return dict(self._run(self._calls.data("POST", "schedules", schedule_id, "pause")))

    def resume_schedule(self, schedule_id: str) -> Dict[str, Any]:
        """Lets a paused schedule go on."""
        return dict(self._run(self._calls.data("POST", "schedules", schedule_id, "resume")))

    def run_schedule(self, schedule_id: str) -> "Operation[Any]":
        """Starts an operation of a schedule now, beside its slots."""
        return self._operation(self._run(self._calls.run_schedule(schedule_id)))

    def delete_schedule(self, schedule_id: str) -> None:
        """Deletes a schedule; its operations stay."""
        self._run(self._calls.delete_schedule(schedule_id))


class Operation(BaseOperation[Result]):
    """An operation. Clients make it."""

    def __init__(self, client: Client, document: Dict[str, Any], worker: Optional[Worker[Any, Result]] = None) -> None:
        super().__init__(document, worker)
        self._client = client
        self._calls, self._run = client._calls, client._run

    def refresh(self) -> "Self":
        """Asks the backend about it."""
        self._take(self._run(self._calls.data("GET", "operations", self.id)))
        return self

    def wait(self, timeout: Optional[float] = None, *, progress: bool = False) -> "Self":
        """Waits until it has ended, in whatever way. With `progress`, a bar shows how far it is: that of tqdm if it is installed.

        Raises `TimeoutError` when it has not ended after `timeout` seconds; it goes on then.
        """
        with contextlib.closing(bar(progress)) as shown:
            self._run(self._calls.wait(self.id, timeout, shown if progress else None, self._take))
        return self

    @overload
    def result(self, kind: None = None, *, timeout: Optional[float] = None, progress: bool = False) -> Result: ...
    @overload
    def result(self, kind: Type[T], *, timeout: Optional[float] = None, progress: bool = False) -> T: ...
    def result(self, kind: Any = None, *, timeout: Optional[float] = None, progress: bool = False) -> Any:
        """Waits until it has ended, and returns its result: as a value of the type `kind` (a pydantic model, a dataclass, …) if that
        is given.

        Raises `OperationFailed`, `OperationCancelled`, and `TimeoutError` as `wait`.
        """
        with contextlib.closing(bar(progress)) as shown:
            value = self._run(self._calls.result(self.id, timeout, shown if progress else None, self._take))
        return self._made(value, kind)

    def cancel(self, reason: Optional[str] = None, *, wait: Optional[float] = None) -> "Self":
        """Cancels it. A running one is asked to stop, and the call waits up to 2 seconds for that, or `wait`; `status` says whether it
        has."""
        self._take(self._run(self._calls.cancel(self.id, reason, wait)))
        return self

    def retry(self) -> "Operation[Result]":
        """Runs the request of this failed or cancelled operation again, as a new operation."""
        return Operation(self._client, self._run(self._calls.repeat(self.id, "retry")), self._worker)

    def resume(self) -> "Operation[Result]":
        """The same, from its newest checkpoint."""
        return Operation(self._client, self._run(self._calls.repeat(self.id, "resume")), self._worker)

    def set_priority(self, priority: int) -> "Self":
        """Gives it another priority while it waits, from 1, the first, to 5."""
        self._take(self._run(self._calls.data("PATCH", "operations", self.id, body={"priority": priority})))
        return self

    def events(self, *, last_event_id: Optional[str] = None) -> Iterator[Event]:
        """Its live events, until it has ended. Goes on where it was when the connection was lost."""
        for event in self._client._iterate(self._calls.events("operations", self.id, "events", last_event_id=last_event_id)):
            self._take_event(event)
            yield event

    def metrics(self, *names: str) -> Metrics:
        """Its metric points so far: all, or those with these names. `.to_pandas()` makes a table of them."""
        return self._run(self._calls.metrics(self.id, names))

    def logs(self, level: Optional[str] = None) -> List[Dict[str, Any]]:
        """Its log lines so far, oldest first; with a level (`"warn"`), those of this level and of more important ones."""
        return self._run(self._calls.logs(self.id, level))

    def history(self) -> List[Dict[str, Any]]:
        """Every event of it."""
        return list(self._run(self._calls.data("GET", "operations", self.id, "history"))["history"])


class _Runner:
    """Carries out one call."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http, self._url = http, url
        self._opened = contextlib.ExitStack()
        self._text: Iterator[str] = iter(())

    def run(self, call: Call[T]) -> T:
        outcomes = self._steps(call)
        try:
            while True:
                next(outcomes)
        except StopIteration as end:
            result: T = end.value
            return result

    def iterate(self, call: Call[Any]) -> Iterator[Any]:
        yield from self._steps(call)

    def _steps(self, call: Call[T]) -> Generator[Any, None, T]:
        """The items of a call; returns what it returns."""
        with self._opened, contextlib.closing(call):
            try:
                effect = next(call)
                while True:
                    if isinstance(effect, Item):
                        yield effect.value
                        effect = call.send(None)
                        continue
                    try:
                        outcome = self._do(effect)
                    except ClientError as error:
                        effect = call.throw(error)
                    else:
                        effect = call.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result

    def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            return time.sleep(effect.seconds)
        if isinstance(effect, Close):
            return self._opened.close()
        try:
            if isinstance(effect, Next):
                return next(self._text, None)
            if isinstance(effect, Open):
                return self._open(effect.request)
            assert isinstance(effect, Request)
            response = self._http.send(built(self._http, effect))
            return Answer(response.status_code, response.headers, response.content)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise failed(self._url, error) from error

    def _open(self, request: Request) -> Answer:
        response = self._http.send(built(self._http, request), stream=True)
        self._opened.callback(response.close)
        self._text = response.iter_text()
        body = response.read() if response.status_code >= 300 else b""
        return Answer(response.status_code, response.headers, body)


class _Left(Exception):
    """Nobody wants the result any more."""


def _result_of(operation: Operation[Any], is_left: threading.Event, patience: float) -> Any:
    """Looks now and then whether somebody still waits, so that a program can end."""
    silent_since: Optional[float] = None
    while not is_left.is_set():
        begun = time.monotonic()
        try:
            return operation.result(timeout=STAY)
        except TimeoutError as late:
            # Without a cause, the backend has answered that the operation goes on.
            if not isinstance(late.__cause__, ClientError):
                silent_since = None
                continue
            silent_since = begun if silent_since is None else silent_since
            if time.monotonic() - silent_since >= patience:
                raise late.__cause__ from None
    raise _Left


def _in_order(one: Callable[[Any, threading.Event], Any], requests: Iterable[Any], concurrency: int) -> Iterator[Any]:
    """The results in the order of the requests, from as many threads."""
    waiting, is_left = iter(requests), threading.Event()
    results: Deque[concurrent.futures.Future[Any]] = collections.deque()
    running: Set[concurrent.futures.Future[Any]] = set()
    threads = concurrent.futures.ThreadPoolExecutor(concurrency, "ktrdr-map")
    try:
        while True:
            for request in itertools.islice(waiting, concurrency - len(running)):
                future = threads.submit(one, request, is_left)
                results.append(future)
                running.add(future)
            if not results:
                return
            if not results[0].done():
                concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            running = {future for future in running if not future.done()}
            while results and results[0].done():
                yield results.popleft().result()
    finally:
        is_left.set()
        for future in results:
            future.cancel()
        threads.shutdown(wait=False)

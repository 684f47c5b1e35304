"""The client, for `async` code."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import itertools
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncGenerator,
    AsyncIterator,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Literal,
    Optional,
    Sequence,
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

__all__ = ["AsyncClient", "AsyncOperation"]

T = TypeVar("T")
Parameters = TypeVar("Parameters")
Result = TypeVar("Result")


class AsyncClient:
    """`Client` for `async` code: the same calls, with `await`, and `async for` where `Client` has iterators.

    ```python
    async with ktrdr.AsyncClient() as client:
        operation = await client.start("training", {"symbol": "GOOG", "timeframe": "1d"})
        print(await operation.result())
    ```
    """

    def __init__(
        self, url: Optional[str] = None, *, token: Optional[str] = None, verify: Verify = True, patience: float = 30.0
    ) -> None:
        settings = Settings(url, token, verify)
        #: The address of the backend.
        self.url = settings.url
        self._http = httpx.AsyncClient(**settings.of_httpx())
        self._calls = Calls(patience)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<ktrdr.AsyncClient {self.url}>"

    async def _run(self, call: Call[T]) -> T:
        return await _Runner(self._http, self.url).run(call)

    def _iterate(self, call: Call[None]) -> AsyncGenerator[Any, None]:
        return _Runner(self._http, self.url).iterate(call)

    # ------------------------------------------------------------ starts

    @overload
    async def start(
        self,
        what: Worker[Parameters, Result],
        request: Parameters,
        *,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> "AsyncOperation[Result]": ...
    @overload
    async def start(
        self,
        what: str,
        request: Any = None,
        *,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> "AsyncOperation[Any]": ...
    async def start(
        self,
        what: Union[str, Worker[Any, Any]],
        request: Any = None,
        *,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> "AsyncOperation[Any]":
        """As `Client.start`."""
        answer = await self._run(self._calls.start(what, request, task_id, idempotency_key, execution))
        return self._operation(answer, what)

    @overload
    async def run(
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
    async def run(
        self,
        what: str,
        request: Any = None,
        *,
        progress: bool = False,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> Any: ...
    async def run(
        self,
        what: Union[str, Worker[Any, Any]],
        request: Any = None,
        *,
        progress: bool = False,
        task_id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        **execution: "Unpack[Execution]",
    ) -> Any:
        """As `Client.run`."""
        answer = await self._run(self._calls.start(what, request, task_id, idempotency_key, execution))
        return await self._operation(answer, what).result(progress=progress)

    @overload
    async def start_many(
        self,
        what: Worker[Parameters, Result],
        requests: Iterable[Parameters],
        *,
        task_ids: Optional[Sequence[str]] = None,
        **execution: "Unpack[Execution]",
    ) -> "List[AsyncOperation[Result]]": ...
    @overload
    async def start_many(
        self,
        what: str,
        requests: Iterable[Any],
        *,
        task_ids: Optional[Sequence[str]] = None,
        **execution: "Unpack[Execution]",
    ) -> "List[AsyncOperation[Any]]": ...
    async def start_many(
        self,
        what: Union[str, Worker[Any, Any]],
        requests: Iterable[Any],
        *,
        task_ids: Optional[Sequence[str]] = None,
        **execution: "Unpack[Execution]",
    ) -> "List[AsyncOperation[Any]]":
        """As `Client.start_many`."""
        outcomes = await self._run(self._calls.start_many(what, requests, task_ids, execution))
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
    ) -> AsyncIterator[Result]: ...
    @overload
    def map(
        self,
        what: Worker[Parameters, Result],
        requests: Iterable[Parameters],
        *,
        concurrency: int = 16,
        return_errors: bool,
        execution: Optional[Execution] = None,
    ) -> AsyncIterator[Union[Result, ClientError]]: ...
    @overload
    def map(
        self,
        what: str,
        requests: Iterable[Any],
        *,
        concurrency: int = 16,
        return_errors: bool = False,
        execution: Optional[Execution] = None,
    ) -> AsyncIterator[Any]: ...
    async def map(
        self,
        what: Union[str, Worker[Any, Any]],
        requests: Iterable[Any],
        *,
        concurrency: int = 16,
        return_errors: bool = False,
        execution: Optional[Execution] = None,
    ) -> AsyncIterator[Any]:
        """As `Client.map`."""

        async def one(request: Any) -> Any:
            try:
                answer = await self._run(self._calls.start(what, request, None, None, execution or {}))
                return await self._operation(answer, what).result()
            except ClientError as error:
                if return_errors:
                    return error
                raise

        if concurrency < 1:
            raise ValueError("concurrency is at least 1")
        waiting: Iterator[Any] = iter(requests)
        results: "Deque[asyncio.Task[Any]]" = collections.deque()
        running: "set[asyncio.Task[Any]]" = set()
        try:
            while True:
                for request in itertools.islice(waiting, concurrency - len(running)):
                    task = asyncio.ensure_future(one(request))
                    results.append(task)
                    running.add(task)
                if not results:
                    return
                if not results[0].done():
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                running = {task for task in running if not task.done()}
                while results and results[0].done():
                    yield results.popleft().result()
        finally:
            for task in results:
                task.cancel()
            await asyncio.gather(*results, return_exceptions=True)

    def _operation(self, document: Dict[str, Any], what: Any = None) -> "AsyncOperation[Any]":
        return AsyncOperation(self, document, what if isinstance(what, Worker) else None)

    # ------------------------------------------------------------ operations

    async def operation(self, operation_id: str) -> "AsyncOperation[Any]":
        """As `Client.operation`."""
        return self._operation(await self._run(self._calls.data("GET", "operations", operation_id)))

    async def list(
        self,
        *,
        limit: Optional[int] = None,
        oldest_first: bool = False,
        results: bool = False,
        **filters: "Unpack[Filter]",
    ) -> "AsyncIterator[AsyncOperation[Any]]":
        """As `Client.list`."""
        async for document in self._iterate(self._calls.list(filters, limit, oldest_first, results)):
            yield self._operation(document)

    async def cancel_all(self, *, limit: int = 1000, dry_run: bool = False, **filters: "Unpack[Filter]") -> Dict[str, Any]:
        """As `Client.cancel_all`."""
        return await self._run(self._calls.by_filter("cancel", filters, limit, dry_run))

    async def retry_all(self, *, limit: int = 1000, dry_run: bool = False, **filters: "Unpack[Filter]") -> Dict[str, Any]:
        """As `Client.retry_all`."""
        return await self._run(self._calls.by_filter("retry", filters, limit, dry_run))

    def events(
        self,
        *,
        operation_type: Optional[str] = None,
        worker_type: Optional[str] = None,
        last_event_id: Optional[str] = None,
    ) -> AsyncIterator[Event]:
        """As `Client.events`."""
        wanted = [("operation_type", operation_type), ("worker_type", worker_type)]
        query = [(name, value) for name, value in wanted if value is not None]
        return self._iterate(self._calls.events("events", query=query, last_event_id=last_event_id))

    # ------------------------------------------------------------ the system

    async def stats(self) -> Dict[str, Any]:
        """As `Client.stats`."""
        return dict(await self._run(self._calls.data("GET", "stats")))

    async def worker_types(self) -> List[Dict[str, Any]]:
        """As `Client.worker_types`."""
        return list((await self._run(self._calls.data("GET", "worker-types")))["worker_types"])

    async def workers(self, *, worker_type: Optional[str] = None, status: Optional[str] = None) -> List[Dict[str, Any]]:
        """As `Client.workers`."""
        return await self._run(self._calls.workers(worker_type, status))

    async def drain(self, worker_id: str) -> Dict[str, Any]:
        """As `Client.drain`."""
        return dict(await self._run(self._calls.data("POST", "workers", worker_id, "drain")))

    async def undrain(self, worker_id: str) -> Dict[str, Any]:
        """As `Client.undrain`."""
        return dict(await self._run(self._calls.data("POST", "workers", worker_id, "undrain")))

    async def queues(self) -> List[Dict[str, Any]]:
        """As `Client.queues`."""
        return list((await self._run(self._calls.data("GET", "queues")))["queues"])

    async def pause(self, worker_type: str, *, until: Optional[datetime.datetime] = None) -> Dict[str, Any]:
        """As `Client.pause`."""
        return await self._run(self._calls.pause(worker_type, until))

    async def resume(self, worker_type: str) -> Dict[str, Any]:
        """As `Client.resume`."""
        return dict(await self._run(self._calls.data("POST", "queues", worker_type, "resume")))

    # ------------------------------------------------------------ schedules

    async def schedules(self) -> List[Dict[str, Any]]:
        """As `Client.schedules`."""
        return list((await self._run(self._calls.data("GET", "schedules")))["schedules"])

    async def schedule(self, schedule_id: str) -> Dict[str, Any]:
        """As `Client.schedule`."""
        return dict(await self._run(self._calls.data("GET", "schedules", schedule_id)))

    async def put_schedule(
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
        """As `Client.put_schedule`."""
        definition = {"cron": cron, "time_zone": time_zone, "overlap": overlap, "catch_up": catch_up, "paused": paused}
        return await self._run(self._calls.put_schedule(schedule_id, what, request, definition, execution))

    async def pause_schedule(self, schedule_id: str) -> Dict[str, Any]:
        """As `Client.pause_schedule`."""
        return dict(await self._run(self._calls.data("POST", "schedules", schedule_id, "pause")))

    async def resume_schedule(self, schedule_id: str) -> Dict[str, Any]:
        """As `Client.resume_schedule`."""
        return dict(await self._run(self._calls.data("POST", "schedules", schedule_id, "resume")))

    async def run_schedule(self, schedule_id: str) -> "AsyncOperation[Any]":
        """As `Client.run_schedule`."""
        return self._operation(await self._run(self._calls.run_schedule(schedule_id)))

    async def delete_schedule(self, schedule_id: str) -> None:
        """As `Client.delete_schedule`."""
        await self._run(self._calls.delete_schedule(schedule_id))


class AsyncOperation(BaseOperation[Result]):
    """`Operation` for `async` code. Clients make it."""

    def __init__(self, client: AsyncClient, document: Dict[str, Any], worker: Optional[Worker[Any, Result]] = None) -> None:
        super().__init__(document, worker)
        self._client = client
        self._calls, self._run = client._calls, client._run

    async def refresh(self) -> "Self":
        """As `Operation.refresh`."""
        self._take(await self._run(self._calls.data("GET", "operations", self.id)))
        return self

    async def wait(self, timeout: Optional[float] = None, *, progress: bool = False) -> "Self":
        """As `Operation.wait`."""
        with contextlib.closing(bar(progress)) as shown:
            await self._run(self._calls.wait(self.id, timeout, shown if progress else None, self._take))
        return self

    @overload
    async def result(self, kind: None = None, *, timeout: Optional[float] = None, progress: bool = False) -> Result: ...
    @overload
    async def result(self, kind: Type[T], *, timeout: Optional[float] = None, progress: bool = False) -> T: ...
    async def result(self, kind: Any = None, *, timeout: Optional[float] = None, progress: bool = False) -> Any:
        """As `Operation.result`."""
        with contextlib.closing(bar(progress)) as shown:
            value = await self._run(self._calls.result(self.id, timeout, shown if progress else None, self._take))
        return self._made(value, kind)

    async def cancel(self, reason: Optional[str] = None, *, wait: Optional[float] = None) -> "Self":
        """As `Operation.cancel`."""
        self._take(await self._run(self._calls.cancel(self.id, reason, wait)))
        return self

    async def retry(self) -> "AsyncOperation[Result]":
        """As `Operation.retry`."""
        return AsyncOperation(self._client, await self._run(self._calls.repeat(self.id, "retry")), self._worker)

    async def resume(self) -> "AsyncOperation[Result]":
        """As `Operation.resume`."""
        return AsyncOperation(self._client, await self._run(self._calls.repeat(self.id, "resume")), self._worker)

    async def set_priority(self, priority: int) -> "Self":
        """As `Operation.set_priority`."""
        self._take(await self._run(self._calls.data("PATCH", "operations", self.id, body={"priority": priority})))
        return self

    async def events(self, *, last_event_id: Optional[str] = None) -> AsyncIterator[Event]:
        """As `Operation.events`."""
        events = self._client._iterate(self._calls.events("operations", self.id, "events", last_event_id=last_event_id))
        try:
            async for event in events:
                self._take_event(event)
                yield event
        finally:
            await events.aclose()

    async def logs(self, level: Optional[str] = None) -> List[Dict[str, Any]]:
        """As `Operation.logs`."""
        return await self._run(self._calls.logs(self.id, level))

    async def metrics(self, *names: str) -> Metrics:
        """As `Operation.metrics`."""
        return await self._run(self._calls.metrics(self.id, names))

    async def history(self) -> List[Dict[str, Any]]:
        """As `Operation.history`."""
        return list((await self._run(self._calls.data("GET", "operations", self.id, "history")))["history"])


class _Runner:
    """Carries out one call."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url
        self._opened = contextlib.AsyncExitStack()
        self._text: Optional[AsyncIterator[str]] = None

    async def run(self, call: Call[T]) -> T:
        results: List[T] = []
        async for _ in self._steps(call, results):
            pass
        return results[0]

    async def iterate(self, call: Call[Any]) -> AsyncGenerator[Any, None]:
        items = self._steps(call, [])
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def _steps(self, call: Call[T], results: List[T]) -> AsyncGenerator[Any, None]:
        """The items of a call; puts what it returns into `results`, because an async generator returns nothing."""
        async with self._opened:
            with contextlib.closing(call):
                try:
                    effect = next(call)
                    while True:
                        if isinstance(effect, Item):
                            yield effect.value
                            effect = call.send(None)
                            continue
                        try:
                            outcome = await self._do(effect)
                        except ClientError as error:
                            effect = call.throw(error)
                        else:
                            effect = call.send(outcome)
                except StopIteration as end:
                    results.append(end.value)

    async def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            return await asyncio.sleep(effect.seconds)
        if isinstance(effect, Close):
            return await self._opened.aclose()
        try:
            if isinstance(effect, Next):
                return await self._next()
            if isinstance(effect, Open):
                return await self._open(effect.request)
            assert isinstance(effect, Request)
            response = await self._http.send(built(self._http, effect))
            return Answer(response.status_code, response.headers, response.content)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise failed(self._url, error) from error

    async def _open(self, request: Request) -> Answer:
        response = await self._http.send(built(self._http, request), stream=True)
        self._opened.push_async_callback(response.aclose)
        self._text = response.aiter_text()
        body = await response.aread() if response.status_code >= 300 else b""
        return Answer(response.status_code, response.headers, body)

    async def _next(self) -> Optional[str]:
        assert self._text is not None
        try:
            return await self._text.__anext__()
        except StopAsyncIteration:
            return None

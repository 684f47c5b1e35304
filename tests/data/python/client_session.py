"""Uses the clients of the package ktrdr against a running system, for the tests.

The backend is that of KTRDR_URL, with a worker `dummy` and the worker of word_count.py beside it, which reads the file in WORDS.
"""

import asyncio
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterator, List

import ktrdr
from word_count import Counted, WordCount, word_count

ENDLESS = {"steps": 100_000, "step_ms": 10}


@dataclass
class Done:
    steps: int


def quick(steps: int) -> "dict[str, int]":
    return {"steps": steps, "step_ms": 1}


def results(client: ktrdr.Client) -> None:
    assert client.start("dummy", quick(3)).result(Done) == Done(3)
    assert client.run("dummy", quick(2), labels={"kind": "quick"}) == {"steps": 2}
    large = client.run("dummy", {"steps": 0, "result_bytes": 400_000})
    assert len(large["filler"]) == 400_000

    counted: Counted = client.start(word_count, WordCount(os.environ["WORDS"], top=1)).result(progress=True)
    assert isinstance(counted, Counted) and counted.words > 0 and len(counted.most_frequent) == 1, counted

    failed = client.start("dummy", {"steps": 3, "fail_at_step": 1})
    try:
        failed.result()
        raise AssertionError("it has failed")
    except ktrdr.OperationFailed as error:
        assert error.code and error.operation_id == failed.id, error
    again = failed.retry().wait()
    assert again.document["retry_of"] == failed.id and again.status == "failed", again.document


if TYPE_CHECKING:

    async def are_typed(client: ktrdr.Client, other: ktrdr.AsyncClient, requests: List[WordCount]) -> None:
        """A worker's function says which results come. Of `Any`, there would be no error to ignore."""
        client.run(word_count, requests[0]).wrong  # type: ignore[attr-defined]
        next(client.map(word_count, requests)).wrong  # type: ignore[attr-defined]
        next(client.map(word_count, requests, return_errors=True)).words  # type: ignore[union-attr]
        (await other.run(word_count, requests[0])).wrong  # type: ignore[attr-defined]
        async for result in other.map(word_count, requests):
            result.wrong  # type: ignore[attr-defined]


def repeats(client: ktrdr.Client) -> None:
    first = client.start("dummy", quick(1), task_id="same")
    second = client.start("dummy", quick(1), task_id="same")
    assert not first.existed and second.existed and second.id == "same"
    by_key = {client.start("dummy", quick(1), idempotency_key="key").id for _ in range(2)}
    assert len(by_key) == 1
    for wrong, code, status in [({"steps": "x"}, "invalid_request", 422), (quick(2), "idempotency_mismatch", 409)]:
        try:
            client.start("dummy", wrong, task_id="same")
            raise AssertionError("it is refused")
        except ktrdr.ApiError as error:
            assert (error.code, error.status) == (code, status), error
            assert error.request_id
            assert (len(error.violations) == 1) == (status == 422), error.violations


def many(client: ktrdr.Client) -> None:
    operations = client.start_many("dummy", [quick(number) for number in range(1, 6)], labels={"batch": "one"}, priority=2)
    assert [operation.result()["steps"] for operation in operations] == [1, 2, 3, 4, 5]
    try:
        client.start_many("dummy", [quick(1), {"stepps": 1}])
        raise AssertionError("one is refused")
    except ktrdr.StartsRefused as error:
        assert list(error.errors) == [1] and error.errors[1].code == "invalid_request"
        assert error.operations[0].wait().status == "completed"

    def requests() -> "Iterator[dict[str, int]]":
        for number in range(12):
            taken.append(number)
            yield quick(number)

    taken: List[int] = []
    mapped = client.map("dummy", requests(), concurrency=3)
    assert next(mapped)["steps"] == 0
    assert len(taken) < 12, "requests are taken as they are needed"
    assert [result["steps"] for result in mapped] == list(range(1, 12))
    outcomes = list(client.map("dummy", [quick(1), {"steps": 2, "fail_at_step": 1}], return_errors=True))
    assert isinstance(outcomes[1], ktrdr.OperationFailed), outcomes

    listed = [operation.id for operation in client.list(labels={"batch": "one"}, oldest_first=True)]
    assert sorted(listed) == sorted(operation.id for operation in operations)
    assert [operation.id for operation in client.list(labels={"batch": "one"}, limit=2)] == listed[:2:-1]

    waiting = client.start_many("dummy", [ENDLESS] * 3, labels={"batch": "two"}, delay_seconds=600)
    tried = client.cancel_all(labels={"batch": "two"}, dry_run=True)
    assert (tried["matched"], tried["done"]) == (3, 0), tried
    assert client.cancel_all(labels={"batch": "two"})["done"] == 3
    assert {operation.refresh().status for operation in waiting} == {"cancelled"}
    repeated = client.retry_all(labels={"batch": "two"}, limit=1)
    assert repeated["done"] == 1, repeated
    client.operation(repeated["results"][0]["retried_as"]).cancel(wait=30)


def one_operation(client: ktrdr.Client) -> None:
    operation = client.start("dummy", ENDLESS)
    seen = operation.events()
    kinds = set()
    for event in seen:
        kinds.add(event.type)
        if {"operation", "progress", "metrics"} <= kinds:
            break
    rest = operation.events()
    next(rest)
    threading.Timer(0.1, lambda: client.operation(operation.id).cancel("enough")).start()
    last = list(rest)[-1]
    assert last.is_end and last.data["status"] == "cancelled", last
    assert list(operation.events(last_event_id=last.id)) == []

    try:
        operation.result()
        raise AssertionError("it was cancelled")
    except ktrdr.OperationCancelled:
        pass
    points = operation.metrics()
    assert len(points) > 0 and points[0]["name"], points
    assert operation.metrics("no-such-name") == []
    assert [entry["event"] for entry in operation.history()][:1] == ["start_requested"], operation.history()
    resumed = operation.resume()
    try:
        resumed.wait(0.2)
        raise AssertionError("it is endless")
    except TimeoutError:
        assert resumed.status == "pending" or resumed.refresh().status in ("pending", "running")
    assert resumed.cancel(wait=30).status == "cancelled"


def the_system(client: ktrdr.Client) -> None:
    assert {worker["worker_type"] for worker in client.workers()} == {"dummy", "word_count_py"}
    worker = client.workers(worker_type="dummy")[0]["worker_id"]
    assert client.drain(worker)["draining"] and not client.undrain(worker)["draining"]
    assert client.pause("dummy")["paused"]
    operation = client.start("dummy", quick(1)).set_priority(1)
    assert operation.document["priority"] == 1
    # The figures of the queue follow the start.
    end = time.monotonic() + 30
    while not any(queue["paused"] and queue["waiting"] for queue in client.queues()):
        assert time.monotonic() < end, client.queues()
        time.sleep(0.1)
    assert not client.resume("dummy")["paused"]
    assert operation.wait(30).status == "completed"
    assert client.stats() and "dummy" in {entry["worker_type"] for entry in client.worker_types()}


def schedules(client: ktrdr.Client) -> None:
    made = client.put_schedule("nightly", "dummy", quick(1), cron="30 9 * * *", time_zone="Europe/Berlin", labels={"by": "clock"})
    assert len(made["next_runs"]) == 5, made
    started = client.run_schedule("nightly").wait(30).refresh()
    assert started.status == "completed" and started.document["schedule_id"] == "nightly", started.document
    assert client.pause_schedule("nightly")["paused"] and not client.resume_schedule("nightly")["paused"]
    assert [schedule["schedule_id"] for schedule in client.schedules()] == ["nightly"]
    client.delete_schedule("nightly")
    try:
        client.schedule("nightly")
        raise AssertionError("it was deleted")
    except ktrdr.ApiError as error:
        assert error.code == "schedule_not_found", error


async def asynchronous() -> None:
    async with ktrdr.AsyncClient() as client:
        counted: Counted = await (await client.start(word_count, WordCount(os.environ["WORDS"]))).result()
        assert counted.words > 0
        mapped = [result["steps"] async for result in client.map("dummy", map(quick, range(6)), concurrency=2)]
        assert mapped == list(range(6)), mapped
        operations = await client.start_many("dummy", [quick(1)] * 3, labels={"batch": "three"})
        await asyncio.gather(*(operation.wait() for operation in operations))
        assert len([operation async for operation in client.list(labels={"batch": "three"}, status="completed")]) == 3

        operation = await client.start("dummy", ENDLESS)
        async for event in operation.events():
            if event.type == "metrics":
                break
        assert len(await operation.metrics()) > 0
        assert (await operation.cancel(wait=30)).status == "cancelled"
        async for event in client.events(operation_type="dummy", last_event_id="1"):
            assert event.type in ("operation", "progress", "worker", "reset"), event
            break


def main() -> None:
    with ktrdr.Client() as client:
        for part in (results, repeats, many, one_operation, the_system, schedules):
            print(part.__name__, file=sys.stderr)
            part(client)
    print("asynchronous", file=sys.stderr)
    asyncio.run(asynchronous())
    print("all of it works")


if __name__ == "__main__":
    main()

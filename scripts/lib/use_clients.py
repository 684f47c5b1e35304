"""Uses the generated clients against a running backend and worker. scripts/check-clients generates them and runs this.

Arguments: the address of the backend, the address of the worker.
"""

import sys
from typing import TypeVar

import ktrdr_backend
import ktrdr_worker
from ktrdr_backend.api.operations import (
    cancel_operation,
    get_history,
    get_metrics,
    get_operation,
    get_results,
    list_operations,
    retry_operation,
)
from ktrdr_backend.api.start import start_dummy
from ktrdr_backend.api.system import get_health, get_stats
from ktrdr_backend.api.workers import list_worker_types, list_workers
from ktrdr_backend.models import (
    CancelResponse,
    DummyStart,
    ErrorCode,
    HealthResponse,
    HistoryResponse,
    MetricsResponse,
    OperationListResponse,
    OperationResponse,
    Problem,
    ResultResponse,
    StartResponse,
    StatsResponse,
    Status,
    WorkerTypesResponse,
)
from ktrdr_worker.api.operations import get_operation as get_operation_of_worker
from ktrdr_worker.api.system import get_health as get_health_of_worker
from ktrdr_worker.models import OperationResponse as WorkerOperationResponse
from ktrdr_worker.models import WorkerHealth

T = TypeVar("T")


def expect(kind: type[T], answer: object) -> T:
    """Returns the answer, which must be of this kind."""
    assert isinstance(answer, kind), f"not a {kind.__name__}: {answer}"
    return answer


def main(backend_address: str, worker_address: str) -> None:
    backend = ktrdr_backend.Client(base_url=backend_address)
    worker = ktrdr_worker.Client(base_url=worker_address)

    # Start, wait, get, result.
    body = DummyStart(task_id="one", steps=2, step_ms=1)
    started = expect(StartResponse, start_dummy.sync(client=backend, body=body))
    operation = expect(OperationResponse, get_operation.sync("one", client=backend, wait=30))
    result = expect(ResultResponse, get_results.sync("one", client=backend))
    points = expect(MetricsResponse, get_metrics.sync("one", client=backend, limit=1))
    history = expect(HistoryResponse, get_history.sync("one", client=backend))
    assert started.operation_id == "one"
    assert operation.status == Status.COMPLETED
    assert operation.data.attempts[0].worker_id == "dummy-worker-1"
    assert operation.progress.percentage == 100
    assert result.to_dict()["data"]["steps"] == 2
    assert len(points.data.metrics) == 1
    assert history.data.history[0].event == "start_requested"

    # List.
    listed = list_operations.sync(client=backend, status=[ktrdr_backend.models.ListOperationsStatusItem.COMPLETED])
    assert expect(OperationListResponse, listed).data.total == 1
    workers = list_workers.sync(client=backend)
    assert isinstance(workers, list)
    assert [one.worker_id for one in workers] == ["dummy-worker-1"]
    types = expect(WorkerTypesResponse, list_worker_types.sync(client=backend))
    assert types.data.worker_types[0].domain == "dummy"
    assert expect(StatsResponse, get_stats.sync(client=backend)).data.operations.completed == 1
    assert expect(HealthResponse, get_health.sync(client=backend)).ready

    # Cancel, retry.
    body = DummyStart(task_id="two", steps=100_000, step_ms=10)
    expect(StartResponse, start_dummy.sync(client=backend, body=body))
    cancelled = cancel_operation.sync("two", client=backend, wait=30, reason="enough")
    assert expect(CancelResponse, cancelled).status == Status.CANCELLED
    again = expect(StartResponse, retry_operation.sync("two", client=backend))
    expect(CancelResponse, cancel_operation.sync(again.operation_id, client=backend, wait=30))

    # Refusals.
    problem = expect(Problem, get_operation.sync("none", client=backend))
    assert problem.code == ErrorCode.OPERATION_NOT_FOUND
    problem = expect(Problem, start_dummy.sync(client=backend, body=DummyStart(steps=-1)))
    assert problem.code == ErrorCode.INVALID_REQUEST
    assert isinstance(problem.violations, list)
    assert problem.violations[0].path == "/steps"

    # The worker's own interface.
    health = expect(WorkerHealth, get_health_of_worker.sync(client=worker))
    assert health.worker_id == "dummy-worker-1"
    known = expect(WorkerOperationResponse, get_operation_of_worker.sync("one", client=worker))
    assert known.data.operation_id == "one"


if __name__ == "__main__":
    main(*sys.argv[1:])

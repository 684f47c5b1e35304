"""Runs a worker's function without NATS and without `ktrdr-worker`, for tests."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Dict, List, Optional, Union

from ._errors import Cancelled, OperationError, PermanentError, RetryAfter
from ._link import Link
from ._main import run_once
from ._values import to_json
from ._worker import Worker

__all__ = ["TestRun"]


class TestRun:
    """One attempt at an operation. What the function reports is kept.

    ```python
    def test_counts_words(tmp_path):
        (tmp_path / "a.txt").write_text("a b a")
        run = ktrdr.testing.TestRun(tmp_path)
        assert run.run(word_count, {"file": "a.txt", "top": 1})["words"] == 3
        assert run.progress["percentage"] == 100
    ```
    """

    __test__ = False  # pytest would take it for tests

    def __init__(
        self,
        data_dir: Union[str, pathlib.Path] = ".",
        *,
        attempt: int = 1,
        checkpoint: Any = None,
        is_owner: bool = True,
    ) -> None:
        self._link = _Reports(self)
        self.data_dir = pathlib.Path(data_dir)
        self.attempt = attempt
        self.is_owner = is_owner
        #: The newest progress.
        self.progress: Dict[str, Any] = {}
        #: The newest checkpoint.
        self.saved = checkpoint
        self._metrics: List[Dict[str, Any]] = []
        #: The log lines of `ctx.log`: dicts with level, text and fields.
        self.log_lines: List[Dict[str, Any]] = []

    def _take(self, kind: str, members: Dict[str, Any]) -> None:
        # Through JSON, as the worker would get it.
        members = json.loads(to_json(members))
        if kind == "progress":
            self.progress = members
        elif kind == "metrics":
            self._metrics.extend(members["points"])
        elif kind == "log":
            self.log_lines.append(members)

    def cancel(self) -> None:
        """Asks the function to stop. May be called before it runs."""
        self._link.cancel()

    def metrics(self, name: Optional[str] = None) -> List[Dict[str, Any]]:
        """The metric points so far; with a name, those of this metric."""
        return [point for point in self._metrics if name in (None, point["name"])]

    def run(self, worker: Worker[Any, Any], request: Any) -> Any:
        """Runs the function, and returns its result as clients get it. Raises what it raised: an `OperationError`, or `Cancelled`.

        If the package jsonschema is installed, the request is checked as a backend does.
        """
        request = json.loads(to_json(request))
        self._check(worker, request)
        start = {
            "operation_id": "test",
            "attempt": self.attempt,
            "parameters": request,
            "checkpoint": self.saved,
            "data_dir": str(self.data_dir.resolve()),
        }
        end = run_once(worker, self._link, start)
        self._link.flush_all()
        if end["type"] == "completed":
            return json.loads(to_json(end["result"]))
        if end["type"] == "cancelled":
            raise Cancelled
        message, code = end["message"], end["code"]
        if end.get("retry_after_seconds") is not None:
            raise RetryAfter(end["retry_after_seconds"], message, code=code)
        raise (PermanentError if end.get("permanent") else OperationError)(message, code=code)

    def _check(self, worker: Worker[Any, Any], request: Any) -> None:
        try:
            import jsonschema  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            return
        try:
            jsonschema.validate(request, worker.description["request_schema"])
        except jsonschema.ValidationError as error:
            raise PermanentError(f"{error.json_path}: {error.message}") from None

    def next_attempt(self) -> "TestRun":
        """The attempt after this one was lost. It finds this one's checkpoint."""
        return TestRun(self.data_dir, attempt=self.attempt + 1, checkpoint=self.saved)


class _Reports(Link):
    """The link of a test: everything is due at once."""

    checkpoint_interval = 0.0

    def __init__(self, run: TestRun) -> None:
        super().__init__(1)
        self._run = run

    def progress_is_due(self) -> bool:
        return True

    def send(self, kind: str, **members: Any) -> None:
        self._run._take(kind, members)

    def checkpoint(self, state: str) -> None:
        self._run.saved = json.loads(state)

    def ask_owner(self) -> bool:
        return self._run.is_owner

"""What a call of a client can raise."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Union

__all__ = ["ApiError", "ClientError", "OperationCancelled", "OperationFailed", "StartsRefused", "Unreachable"]

#: Statuses of answers that pass: of a backend, and of something between, which says nothing about the request.
_PASSING = (429, 502, 503, 504)

#: Codes with such a status that a repetition in the next seconds does not mend. The Rust client has the same rule.
_LASTING = ("invalid_result", "no_workers_available", "schema_unusable", "worker_not_answering")


class ClientError(Exception):
    """Anything that a client raises by itself."""

    #: Of `start_many` that did not come to its end: the answers to the starts before, in order, an `ApiError` for a refused one.
    outcomes: Optional[List[Union[Dict[str, Any], ApiError]]] = None
    #: Then also the ids of all starts, in order: `start_many(…, task_ids=error.task_ids)` starts the others, and nothing twice.
    task_ids: Optional[List[str]] = None


class Unreachable(ClientError, ConnectionError):
    """The backend does not answer: wrong address, no network, or it does not run."""

    def __init__(self, message: str, *, is_lasting: bool = False) -> None:
        super().__init__(message)
        #: Whether the same request fails again, as with a certificate that nobody trusts.
        self.is_lasting = is_lasting


class ApiError(ClientError):
    """The backend refused the request. `docs/errors.md` of the project describes the codes."""

    def __init__(self, status: int, document: Mapping[str, Any], headers: Optional[Mapping[str, str]] = None) -> None:
        headers = headers or {}
        #: The HTTP status.
        self.status = status
        #: The whole error document: some codes have fields of their own.
        self.document = dict(document)
        #: A stable word for programs; None when something between answered instead of the backend.
        self.code: Optional[str] = self.document.get("code")
        #: What went wrong and what to do, for people.
        self.message = str(self.document.get("error") or f"HTTP status {status}")
        #: With the code `invalid_request`: every place that does not fit, as `{"path": …, "message": …}`.
        self.violations: List[Dict[str, str]] = list(self.document.get("violations") or ())
        #: Names the request in the backend's log.
        self.request_id: Optional[str] = headers.get("x-request-id")
        #: Seconds after which the request may be sent again, if the backend said so.
        self.retry_after: Optional[float] = _seconds(headers.get("retry-after"))
        super().__init__(self._text())

    @classmethod
    def read(cls, status: int, body: bytes, headers: Mapping[str, str]) -> "ApiError":
        """The error of an answer, also of one that a proxy wrote."""
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            document = {"error": body[:500].decode("utf-8", "replace").strip()}
        if 300 <= status < 400:
            document["error"] = f"something at this address sends to {headers.get('location', 'nowhere')}; give the address of the backend itself"
        return cls(status, document, headers)

    def _text(self) -> str:
        text = f"{self.code}: {self.message}" if self.code else f"{self.message} (HTTP status {self.status})"
        # A message of one place often says it already.
        for violation in self.violations:
            if violation.get("message", "") not in self.message:
                text += f"\n  {violation.get('path') or '/'}: {violation.get('message')}"
        return text

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.status in _PASSING and self.code not in _LASTING and "missing_permissions" not in self.document


class OperationFailed(ClientError):
    """The operation has failed, so it has no result."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        error = document.get("error") or {}
        #: The id of the operation.
        self.operation_id = str(document["operation_id"])
        #: The operation, as the backend shows it.
        self.document = dict(document)
        #: A stable word for programs.
        self.code: Optional[str] = error.get("code")
        #: What went wrong, for people.
        self.message = str(error.get("message") or document.get("error_message") or "")
        super().__init__(f"{self.operation_id} failed: {self.code}: {self.message}")


class OperationCancelled(ClientError):
    """The operation was cancelled, so it has no result."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        #: The id of the operation.
        self.operation_id = str(document["operation_id"])
        #: The operation, as the backend shows it.
        self.document = dict(document)
        super().__init__(f"{self.operation_id} was cancelled")


class StartsRefused(ClientError):
    """Some of many starts were refused. The others have been started."""

    def __init__(self, errors: Mapping[int, ApiError], operations: List[Any]) -> None:
        #: Why, by the index in the list of requests, from 0.
        self.errors = dict(errors)
        #: The operations in the order of the requests; None for a refused one.
        self.operations = operations
        first = min(self.errors)
        super().__init__(f"{len(self.errors)} of {len(operations)} starts were refused; the request at index {first}: {self.errors[first]}")


def _seconds(text: Optional[str]) -> Optional[float]:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:  # a date
        return None

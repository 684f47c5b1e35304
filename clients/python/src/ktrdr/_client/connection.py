"""What both clients have in common: where the backend is, and what its HTTP library raises."""

from __future__ import annotations

import os
import re
import ssl
from typing import TYPE_CHECKING, Any, Dict, Generic, Mapping, Optional, TypeVar, Union

from .calls import Request
from .errors import ClientError, Unreachable
from .sse import Event

if TYPE_CHECKING:
    import httpx

    from .._worker import Worker

__all__ = ["BaseOperation", "Settings", "built", "failed"]

Result = TypeVar("Result")

#: Whom to trust: True for the authorities of this machine, a file of certificates, a context; False trusts everybody.
Verify = Union[bool, str, ssl.SSLContext]


class Settings:
    """Where the backend is, and how to speak with it."""

    def __init__(self, url: Optional[str], token: Optional[str], verify: Verify) -> None:
        self.url = (url or os.environ.get("KTRDR_URL") or "http://127.0.0.1:8000").rstrip("/")
        if not re.match(r"https?://[^/]", self.url):
            raise ValueError(f"{self.url!r} is no address of a backend: it begins with http:// or https://, and a host follows")
        token = (token or os.environ.get("KTRDR_TOKEN") or "").strip()
        if not re.fullmatch(r"[\x20-\x7e]*", token):
            # Without the token itself: it is secret.
            raise ValueError("the token cannot be sent: it has characters that no header can hold")
        self._verify = verify
        self._headers = {"user-agent": "ktrdr-python"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def of_httpx(self) -> Dict[str, Any]:
        """The arguments of both clients of httpx."""
        import httpx

        verify: Union[bool, ssl.SSLContext]
        verify = ssl.create_default_context(cafile=self._verify) if isinstance(self._verify, str) else self._verify
        # `map` decides how many requests there are at a time.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        try:
            base = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.url!r} is no address of a backend: {error}") from None
        return {"base_url": base, "headers": self._headers, "verify": verify, "limits": limits}


def failed(url: str, error: "Union[httpx.RequestError, httpx.InvalidURL]") -> ClientError:
    """The same error in the words of this package."""
    import httpx

    reason = str(error) or type(error).__name__
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return Unreachable(f"{url} cannot be asked: {reason}", is_lasting=True)
    if isinstance(error, httpx.TransportError):
        return Unreachable(f"{url} cannot be reached: {reason}", is_lasting="CERTIFICATE_VERIFY_FAILED" in reason)
    if isinstance(error, httpx.DecodingError):
        return ClientError(f"the answer of {url} cannot be read: {reason}")
    return ClientError(f"{url} cannot be asked: {reason}")


class BaseOperation(Generic[Result]):
    """What is known of an operation."""

    def __init__(self, document: Mapping[str, Any], worker: "Optional[Worker[Any, Result]]" = None) -> None:
        #: Its id.
        self.id = str(document["operation_id"])
        #: What the backend said about it last: all members of `GET /api/v1/operations/{id}`, or only some of them after a start.
        self.document: Dict[str, Any] = dict(document)
        self._worker = worker

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def status(self) -> str:
        """`pending`, `running`, `completed`, `failed` or `cancelled`, when the backend was last asked."""
        return str(self.document.get("status"))

    @property
    def existed(self) -> bool:
        """Whether the start found an operation with this id, and started nothing."""
        return bool(self.document.get("existed"))

    @property
    def warning(self) -> Optional[str]:
        """What the backend warned of at the start, for example that no worker could run it now."""
        return self.document.get("warning")

    @property
    def progress(self) -> Dict[str, Any]:
        """How far it was when the backend was last asked: `percentage`, `current_step`, counters of the engine."""
        return dict(self.document.get("progress") or {})

    def _take(self, document: Mapping[str, Any]) -> None:
        self.document.update(document)

    def _take_event(self, event: Event) -> None:
        if event.type == "operation":
            # What the event leaves out may be known already.
            left_out = ("truncated", *(event.data.get("truncated") or ()))
            self._take({name: value for name, value in event.data.items() if name not in left_out})

    def _made(self, value: Any, kind: Any) -> Any:
        if kind is not None:
            from .._make import make

            return make(kind, value)
        return value if self._worker is None else self._worker.result(value)


def built(http: "Union[httpx.Client, httpx.AsyncClient]", request: Request) -> "httpx.Request":
    """The request in the words of httpx."""
    headers = dict(request.headers)
    if request.body is not None:
        headers["content-type"] = "application/json"
    return http.build_request(
        request.method,
        request.path,
        params=list(request.query),
        content=None if request.body is None else request.body.encode("utf-8", "replace"),
        headers=headers,
        timeout=request.timeout,
    )

"""Workers and clients for KTRDR.

A worker is a function, a type for its request, and one line to run it:

```python
import ktrdr

@ktrdr.worker("greeter")
def greet(ctx: ktrdr.Context, request: dict[str, str]) -> str:
    return f"Hello, {request['name']}!"

if __name__ == "__main__":
    ktrdr.main(greet)
```

A client starts operations and waits for them. It needs httpx (`pip install httpx`):

```python
with ktrdr.Client() as client:
    print(client.run("greeter", {"name": "world"}))
```
"""

from typing import TYPE_CHECKING, Any

from . import testing
from ._client.errors import ApiError, ClientError, OperationCancelled, OperationFailed, StartsRefused, Unreachable
from ._client.metrics import Metrics
from ._client.sse import Event
from ._context import Context, DataDir
from ._errors import Cancelled, DeclarationError, OperationError, PermanentError, RetryAfter
from ._main import main
from ._worker import Worker, worker

if TYPE_CHECKING:
    from ._client.asynchronous import AsyncClient as AsyncClient, AsyncOperation as AsyncOperation
    from ._client.sync import Client as Client, Operation as Operation

# Without the clients: `from ktrdr import *` must work without httpx.
__all__ = [
    "ApiError",
    "Cancelled",
    "ClientError",
    "Context",
    "DataDir",
    "DeclarationError",
    "Event",
    "Metrics",
    "OperationCancelled",
    "OperationError",
    "OperationFailed",
    "PermanentError",
    "RetryAfter",
    "StartsRefused",
    "Unreachable",
    "Worker",
    "main",
    "testing",
    "worker",
]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # A worker needs no httpx, and should not wait for its import.
    if name not in ("AsyncClient", "AsyncOperation", "Client", "Operation"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ._client import asynchronous, sync
    except ImportError as error:
        raise ImportError(f"ktrdr.{name} needs httpx: pip install httpx ({error})") from error
    return getattr(asynchronous if name.startswith("Async") else sync, name)

"""Runs a worker: speaks with `ktrdr-worker` if that started this program, or else becomes `ktrdr-worker`, which starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import sys
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from ._context import Context
from ._errors import Cancelled, OperationError, RetryAfter
from ._interrupt import interrupts
from ._link import PROTOCOL, Link, Pipes
from ._logging import attach, stay_attached
from ._programs import become_worker, this_program
from ._told import text_of, told
from ._values import plain, to_json
from ._worker import Worker

__all__ = ["main", "run_once"]

_FOLDER = os.path.dirname(os.path.abspath(__file__))

#: Longest message of a failure, in characters. The worker keeps 8 KiB of it.
MAX_MESSAGE = 16 * 1024

#: Longest error code, in characters.
MAX_CODE = 64

#: Largest result, in bytes of JSON; the line around it needs some more.
MAX_RESULT = 64 * 1024 * 1024 - 1024


def main(worker: Worker[Any, Any], arguments: Optional[List[str]] = None) -> None:
    """The program of a worker. Call it at the end of the file, under `if __name__ == "__main__":`.

    Started by a person, it becomes `ktrdr-worker` with the arguments of the command line and the settings of the environment; that
    runs this file once per slot. Set `KTRDR_WORKER_BIN` if the program is not on the path.
    """
    if os.environ.get("KTRDR_EXEC"):
        _serve(worker, *_pipes_of_environment())
    else:
        become_worker(this_program(), sys.argv[1:] if arguments is None else arguments)


def _pipes_of_environment() -> Tuple[int, int]:
    """Takes the variables away: programs that the function starts are not those of the worker."""
    del os.environ["KTRDR_EXEC"]
    down, up = (os.environ.pop(name, "") for name in ("KTRDR_EXEC_IN", "KTRDR_EXEC_OUT"))
    if not (down.isdigit() and up.isdigit()):
        sys.exit("this program speaks with ktrdr-worker over pipes, and there are none: use --exec, not --exec-simple")
    return int(down), int(up)


def _serve(worker: Worker[Any, Any], down: int, up: int) -> None:
    pipes = Pipes(down, up)
    description = {"type": "describe", "protocol": PROTOCOL, **worker.description}
    if description["uses_gpu"] == "torch":
        import torch  # type: ignore[import-not-found,unused-ignore]

        description["uses_gpu"] = torch.cuda.is_available()
    pipes.write(to_json(description))
    handler = attach(pipes.current)

    pid = os.getpid()
    while True:
        run = pipes.next_run()
        if run is None:
            return
        start, link = run
        stay_attached(handler)
        try:
            end = run_once(worker, link, start)
        except SystemExit as error:
            # Only a child lets it pass.
            _leave(error.code)
        if os.getpid() != pid:
            # The function has forked, and its child came back here. It is no worker.
            _leave(end["message"] if end["type"] == "failed" else 0)
        link.end()
        pipes.write(_last_line(link.run, end))


def _leave(code: Any) -> NoReturn:
    """Ends a forked child as `sys.exit` does, without what is to be done at the end of its parent."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit((code or 0) & 0xFF)


def _last_line(run: int, end: Dict[str, Any]) -> str:
    line = to_json({**end, "run": run})
    size = len(line.encode("utf-8", "replace"))
    if end["type"] == "completed" and size > MAX_RESULT:
        text = f"the result has {size} bytes of JSON, and {MAX_RESULT} are allowed: write it to a file, and return its name"
        return to_json({**_failed(text, code="result_too_large", permanent=True), "run": run})
    return line


def run_once(worker: Worker[Any, Any], link: Link, start: Dict[str, Any]) -> Dict[str, Any]:
    """Runs the function once, and returns the message that ends the run. In a child that the function has forked, `SystemExit` passes."""
    pid = os.getpid()
    try:
        request = worker.request(start["parameters"])
    except Exception as error:  # pydantic's validators may refuse what its schema allows
        return _failed(f"the parameters do not fit: {text_of(error)}", code="invalid_request", permanent=True)
    context = Context(link, start)
    try:
        if worker.is_async:
            result = asyncio.run(_cancellable(worker, context, request, link))
        elif worker.interrupt:
            with interrupts(link):
                result = worker.function(context, request)
        else:
            result = worker.function(context, request)
        # A result that cannot be written as JSON is a failure of the function.
        return {"type": "completed", "result": plain(result)}
    except Cancelled:
        return {"type": "cancelled"}
    except (asyncio.CancelledError, KeyboardInterrupt) as error:
        # The function may cancel tasks of its own. Only a cancel of the operation makes it cancelled.
        if link.cancelled.is_set():
            return {"type": "cancelled"}
        return _failed(told(error, _FOLDER), code="exception")
    except RetryAfter as error:
        return _failed(text_of(error), code=error.code, retry_after_seconds=error.seconds)
    except OperationError as error:
        return _failed(text_of(error), code=error.code, permanent=error.permanent is True)
    except SystemExit as error:
        if os.getpid() != pid:
            raise
        return _failed(f"the function left the program with sys.exit({error.code!r})", code="exception")
    except BaseException as error:
        return _failed(told(error, _FOLDER), code="exception")


async def _cancellable(worker: Worker[Any, Any], context: Context, request: Any, link: Link) -> Any:
    task = asyncio.ensure_future(worker.function(context, request))
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        loop.call_soon_threadsafe(task.cancel)

    # It is taken back before the loop is closed, and `Link` does not call it after that.
    link.when_cancelled(cancel)
    try:
        return await task
    finally:
        link.when_cancelled(None)


def _failed(message: str, *, code: Any, retry_after_seconds: Any = None, **members: Any) -> Dict[str, Any]:
    """The message, within the bounds of the protocol: what is beyond them would end the program."""
    # The author's own error classes may set other types than theirs.
    with contextlib.suppress(TypeError, ValueError):
        seconds = float(retry_after_seconds)
        if math.isfinite(seconds):
            members["retry_after_seconds"] = max(0.0, seconds)
    code = re.sub(r"[^A-Za-z0-9_-]", "_", str(code))[:MAX_CODE] or "exception"
    return {"type": "failed", "message": message[:MAX_MESSAGE], "code": code, **members}

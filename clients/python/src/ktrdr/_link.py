"""What a context speaks with: the worker, or a test."""

from __future__ import annotations

import collections
import json
import math
import os
import threading
import time
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from ._values import to_json

__all__ = ["Link", "Pipes", "WorkerLink"]

#: The version of the messages of docs/exec.md.
PROTOCOL = 1

#: Reports are written this often, in seconds. The worker sends them on at about the same rate.
PAUSE = 0.1

#: Most metric points of one message.
MAX_POINTS = 1000

#: Longest name of a metric, in bytes.
MAX_NAME = 200

#: Longest text of a log line, in characters, and most characters of its fields.
MAX_TEXT = 8 * 1024
MAX_FIELDS = 4 * 1024

#: Longest message that is no result, in bytes of UTF-8.
MAX_MESSAGE = 1024 * 1024


class Link:
    """Where the messages of one run go. `send` takes the members of a message."""

    #: Least time between two checkpoints, in seconds.
    checkpoint_interval = 1.0

    def __init__(self, run: int) -> None:
        self.run = run
        self.cancelled = threading.Event()
        self._on_cancel: Optional[Callable[[], None]] = None
        self._cancel_lock = threading.Lock()
        self._lock = threading.Lock()
        self._progress: Optional[Dict[str, Any]] = None
        self._points: List[Dict[str, Any]] = []
        self._is_due_at = 0.0
        self._is_over = False

    def send(self, kind: str, **members: Any) -> None:
        raise NotImplementedError

    def ask_owner(self) -> bool:
        raise NotImplementedError

    def checkpoint(self, state: str) -> None:
        """Sends a checkpoint that is written as JSON already."""
        raise NotImplementedError

    def cancel(self) -> None:
        # Under a lock, so that nothing is called once `when_cancelled` has taken it back.
        with self._cancel_lock:
            self.cancelled.set()
            if self._on_cancel is not None:
                self._on_cancel()

    def when_cancelled(self, call: Optional[Callable[[], None]]) -> None:
        """Calls this as soon as the run is cancelled, from another thread; at once if it is; `None` takes it back."""
        with self._cancel_lock:
            self._on_cancel = call
            if call is not None and self.cancelled.is_set():
                call()

    def progress_is_due(self) -> bool:
        return time.monotonic() >= self._is_due_at

    def progress(self, report: Dict[str, Any]) -> None:
        with self._lock:
            self._progress = report
            is_due = self.progress_is_due()
        if is_due:
            self.flush()
        else:
            self.wake()

    def metric(self, name: str, value: float, step: Optional[float]) -> None:
        point: Dict[str, Any] = {"name": _short_name(name), "value": _number(value)}
        if step is not None:
            point["step"] = _number(step)
        with self._lock:
            self._points.append(point)
            is_due = len(self._points) >= MAX_POINTS or self.progress_is_due()
        if is_due:
            self.flush()
        else:
            self.wake()

    def log(self, level: str, text: str, fields: Dict[str, Any]) -> bool:
        """Sends a log line. False when the run is over."""
        with self._lock:
            if self._is_over:
                return False
        # What is longer would be a fault against the protocol, and the worker would not keep it.
        if len(to_json(fields)) > MAX_FIELDS:
            fields = {}
        self.send("log", level=level, text=text[:MAX_TEXT], fields=fields)
        return True

    def wake(self) -> None:
        """Something waits to be written: somebody should call `flush` soon."""

    def flush(self) -> None:
        """Writes what waits."""
        with self._lock:
            if self._is_over:
                return
            report, self._progress = self._progress, None
            points, self._points = self._points, []
            self._is_due_at = time.monotonic() + PAUSE
            # Inside the lock, so that points keep their order.
            if points:
                self.send("metrics", points=points)
            if report is not None:
                self.send("progress", **report)

    def end(self) -> None:
        """Writes what waits, and nothing after it."""
        self.flush()
        with self._lock:
            self._is_over = True


def _short_name(name: str) -> str:
    if not name:
        raise ValueError("a metric needs a name")
    # What is longer would be a fault against the protocol, and end the run.
    return name if len(name) <= MAX_NAME // 4 else name.encode("utf-8", "replace")[:MAX_NAME].decode("utf-8", "ignore")


def _number(value: Any) -> Optional[float]:
    """Also of numpy and torch. Fails in the author's line when it is no number."""
    number = value if type(value) is int else float(value)
    return number if math.isfinite(number) else None


class Pipes:
    """The pipes to the worker."""

    def __init__(self, down: int, up: int) -> None:
        self._up = up
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._starts: Deque[Tuple[Dict[str, Any], WorkerLink]] = collections.deque()
        self._answers: Dict[int, bool] = {}
        self._asked = 0
        self._current: Optional[WorkerLink] = None
        self._is_closed = False
        self._waits = threading.Event()
        self._pid = os.getpid()
        # Children of the program have no business here.
        os.set_inheritable(down, False)
        os.set_inheritable(up, False)
        threading.Thread(target=self._listen, args=(down,), name="ktrdr-messages", daemon=True).start()
        threading.Thread(target=self._flush, name="ktrdr-reports", daemon=True).start()

    def write(self, text: str) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("this is a forked process: only the process of the worker may use its context")
        # A name of a file that is no text has characters that UTF-8 cannot hold.
        data = memoryview(text.encode("utf-8", "replace") + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._up, data) :]

    def current(self) -> Optional[WorkerLink]:
        """The newest run."""
        return self._current

    def next_run(self) -> Optional[Tuple[Dict[str, Any], WorkerLink]]:
        """The next run; None when the worker stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._starts or self._is_closed)
            return self._starts.popleft() if self._starts else None

    def ask_owner(self, run: int) -> bool:
        with self._changed:
            self._asked += 1
            request = self._asked
        self.write(to_json({"type": "ensure_owner", "run": run, "request": request}))
        with self._changed:
            self._changed.wait_for(lambda: request in self._answers or self._is_closed)
            return self._answers.pop(request, False)

    def _listen(self, down: int) -> None:
        try:
            self._read(down)
        finally:
            # Also after a fault: a process that no longer listens must end, so that the worker starts another one.
            with self._changed:
                self._is_closed = True
                link = self._current
                self._changed.notify_all()
            if link is not None:
                link.cancel()

    def _read(self, down: int) -> None:
        with os.fdopen(down, encoding="utf-8", newline="\n") as lines:
            for line in lines:
                message = json.loads(line)
                kind, link = message.get("type"), None
                with self._changed:
                    if kind == "start":
                        self._current = WorkerLink(message["run"], self)
                        self._starts.append((message, self._current))
                    elif kind == "owner":
                        self._answers[message["request"]] = message["is_owner"]
                    elif kind == "cancel":
                        link = self._current
                    self._changed.notify_all()
                if link is not None and link.run == message["run"]:
                    link.cancel()

    def wake(self) -> None:
        self._waits.set()

    def _flush(self) -> None:
        while True:
            self._waits.wait()
            self._waits.clear()
            time.sleep(PAUSE)
            link = self._current
            if link is not None and os.getpid() == self._pid:
                link.flush()


class WorkerLink(Link):
    """A run of the worker."""

    def __init__(self, run: int, pipes: Pipes) -> None:
        super().__init__(run)
        self._pipes = pipes

    def send(self, kind: str, **members: Any) -> None:
        line = to_json({"type": kind, "run": self.run, **members})
        if kind == "progress" and len(line) > MAX_MESSAGE // 4:
            # A character has four bytes at most. The worker would not keep so many counters, either.
            line = to_json({"type": kind, "run": self.run, **members, "fields": {}})
        self._pipes.write(line)

    def checkpoint(self, state: str) -> None:
        self._pipes.write(f'{{"type":"checkpoint","run":{self.run},"state":{state}}}')

    def ask_owner(self) -> bool:
        return self._pipes.ask_owner(self.run)

    def wake(self) -> None:
        self._pipes.wake()

"""What a context speaks with: the worker, or a test.

Finalizers and handlers of signals run in the middle of any line of Python, also of this file, and may log or report. So nobody who reports
waits for a lock here: what is to be sent goes into a queue, and whoever holds the lock sends it.
"""

from __future__ import annotations

import collections
import json
import math
import os
import queue
import threading
import time
from typing import Any, Callable, Deque, Dict, Optional, Tuple

from ._values import to_json

__all__ = ["Link", "Pipes", "WorkerLink"]

#: The version of the messages of docs/exec.md.
PROTOCOL = 1

#: Reports are written this often, in seconds. The worker sends them on at about the same rate.
PAUSE = 0.1

#: Most metric points of one message.
MAX_POINTS = 1000

#: How many points and lines may wait while another thread writes. With more of them, each report takes `BRAKE` seconds.
MAX_WAITING_POINTS = 10 * MAX_POINTS
MAX_WAITING_LINES = 1000
BRAKE = 0.01

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
        # The newest one.
        self._progress: Deque[Dict[str, Any]] = collections.deque(maxlen=1)
        self._points: Deque[Dict[str, Any]] = collections.deque()
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

    @property
    def is_over(self) -> bool:
        return self._is_over

    def progress_is_due(self) -> bool:
        return time.monotonic() >= self._is_due_at

    def progress(self, report: Dict[str, Any]) -> None:
        self._progress.append(report)
        if self.progress_is_due():
            self.flush()
        else:
            self.wake()

    def metric(self, name: str, value: float, step: Optional[float]) -> None:
        point: Dict[str, Any] = {"name": _short_name(name), "value": _number(value)}
        if step is not None:
            point["step"] = _number(step)
        self._points.append(point)
        if len(self._points) >= MAX_POINTS or self.progress_is_due():
            self.flush()
        else:
            self.wake()

    def log(self, level: str, text: str, fields: Dict[str, Any]) -> bool:
        """Sends a log line. False when the run is over."""
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
        """Writes what waits, or leaves it for the next time when somebody is about it."""
        if not self._lock.acquire(blocking=False):
            self.wake()
            if len(self._points) > MAX_WAITING_POINTS:
                time.sleep(BRAKE)
            return
        try:
            self._send_waiting()
        finally:
            self._lock.release()

    def flush_all(self) -> None:
        """The same, after whoever is about it. For the thread that has run the function."""
        with self._lock:
            self._send_waiting()

    def end(self) -> None:
        """Writes what waits, and nothing after it."""
        with self._lock:
            self._send_waiting()
            self._is_over = True

    def _send_waiting(self) -> None:
        """Inside the lock, so that points keep their order."""
        if self._is_over:
            return
        self._is_due_at = time.monotonic() + PAUSE
        # What comes meanwhile is for the next time.
        points = [self._points.popleft() for _ in range(len(self._points))]
        for first in range(0, len(points), MAX_POINTS):
            self.send("metrics", points=points[first : first + MAX_POINTS])
        if self._progress:
            self.send("progress", **self._progress.popleft())


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
        self._lines: Deque[bytes] = collections.deque()
        self._changed = threading.Condition()
        self._starts: Deque[Tuple[Dict[str, Any], WorkerLink]] = collections.deque()
        # By the number of the question; None while there is no answer.
        self._answers: Dict[int, Optional[bool]] = {}
        self._asked = 0
        self._current: Optional[WorkerLink] = None
        self._is_closed = False
        # Other than an event, it can be used by a finalizer that runs in the middle of its use.
        self._wakes: "queue.SimpleQueue[None]" = queue.SimpleQueue()
        self._pid = os.getpid()
        # Children of the program have no business here.
        os.set_inheritable(down, False)
        os.set_inheritable(up, False)
        threading.Thread(target=self._listen, args=(down,), name="ktrdr-messages", daemon=True).start()
        threading.Thread(target=self._flush, name="ktrdr-reports", daemon=True).start()

    def write(self, text: str) -> None:
        self._check_process()
        # A name of a file that is no text has characters that UTF-8 cannot hold.
        self._lines.append(text.encode("utf-8", "replace") + b"\n")
        while self._lines:
            if not self._lock.acquire(blocking=False):
                # Somebody writes, perhaps this very thread, further up. It looks for more lines before and after it lets go.
                if len(self._lines) > MAX_WAITING_LINES:
                    time.sleep(BRAKE)
                return
            try:
                while self._lines:
                    self._write_line(self._lines.popleft())
            finally:
                self._lock.release()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("this is a forked process: only the process of the worker may use its context")

    def _write_line(self, line: bytes) -> None:
        data = memoryview(line)
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

    def ask_owner(self, link: WorkerLink) -> bool:
        """False also when the run has ended: nobody answers a question about it."""
        with self._changed:
            self._asked += 1
            request = self._asked
            self._answers[request] = None
        self.write(to_json({"type": "ensure_owner", "run": link.run, "request": request}))
        with self._changed:
            self._changed.wait_for(lambda: self._answers[request] is not None or link.is_over or self._is_closed)
            return bool(self._answers.pop(request))

    def tell_end(self) -> None:
        """A run has ended: whoever waits for an answer should look."""
        with self._changed:
            self._changed.notify_all()

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
                    elif kind == "owner" and message["request"] in self._answers:
                        self._answers[message["request"]] = message["is_owner"]
                    elif kind == "cancel":
                        link = self._current
                    self._changed.notify_all()
                if link is not None and link.run == message["run"]:
                    link.cancel()

    def wake(self) -> None:
        # No thread of a forked process flushes.
        self._check_process()
        if self._wakes.empty():
            self._wakes.put(None)

    def _flush(self) -> None:
        while True:
            self._wakes.get()
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
        return self._pipes.ask_owner(self)

    def end(self) -> None:
        super().end()
        self._pipes.tell_end()

    def wake(self) -> None:
        self._pipes.wake()

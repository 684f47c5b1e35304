"""What a worker's function gets: the operation that it runs."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import time
from typing import Any, Dict, Iterable, Iterator, Optional, Sized, TypeVar, Union

from ._errors import Cancelled, PermanentError
from ._link import Link
from ._values import MAX_DEPTH, plain, to_json

__all__ = ["Context", "DataDir"]

T = TypeVar("T")

#: Largest checkpoint, in bytes of JSON.
MAX_CHECKPOINT = 512 * 1024

#: Longest text of a step, in characters.
MAX_STEP = 1000

#: Levels of log lines, the least important first.
LEVELS = ("trace", "debug", "info", "warn", "error")

_log = logging.getLogger("ktrdr")


class DataDir:
    """The directory that requests may read from and write to."""

    def __init__(self, root: Union[str, pathlib.Path]) -> None:
        self.root = pathlib.Path(root)

    def resolve(self, path: Union[str, pathlib.Path]) -> pathlib.Path:
        """The full path of a path in a request. One that leaves the directory, also through a link, is refused."""
        root = self.root.resolve()
        full = (root / path).resolve()
        if full != root and root not in full.parents:
            raise PermanentError(f"the path {str(path)!r} leaves the data directory")
        return full


class Context:
    """The operation that runs. Any thread of the process may use it."""

    def __init__(self, link: Link, start: Dict[str, Any]) -> None:
        self._link = link
        #: The id of the operation.
        self.operation_id: str = start["operation_id"]
        #: Which attempt this is, from 1.
        self.attempt: int = start["attempt"]
        #: The data directory.
        self.data_dir = DataDir(start["data_dir"])
        self._checkpoint = start.get("checkpoint")
        self._is_too_large = False
        # A run that is shorter leaves no checkpoint.
        self._checkpoint_due = time.monotonic() + link.checkpoint_interval

    # ------------------------------------------------------------ what it reports

    def progress(
        self,
        percentage: float,
        step: Optional[str] = None,
        *,
        remaining_seconds: Optional[float] = None,
        **fields: Any,
    ) -> None:
        """Says how far the operation is: 0 to 100, what it does now, and counters of your own. One that is nested too deep is left out."""
        value = float(percentage)
        # NaN is no progress, and JSON has no infinity.
        report: Dict[str, Any] = {"percentage": min(100.0, max(0.0, value)) if value == value else 0.0}
        if step is not None:
            report["step"] = str(step)[:MAX_STEP]
        if remaining_seconds is not None:
            report["remaining_seconds"] = max(0.0, float(remaining_seconds))
        if fields:
            report["fields"] = _plain_fields(fields)
        self._link.progress(report)

    @property
    def progress_is_due(self) -> bool:
        """Whether the last progress is a tenth of a second old: for loops that make texts for it."""
        return self._link.progress_is_due()

    def track(
        self, items: Iterable[T], total: Optional[int] = None, step: Optional[str] = None
    ) -> Iterator[T]:
        """Goes over `items`, reports progress, and stops when the operation is cancelled.

        `step` is a text such as `"Line {done} of {total}"`.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        begun, is_cancelled, done = time.monotonic(), self._link.cancelled.is_set, 0
        for item in items:
            if is_cancelled():
                raise Cancelled
            if self._link.progress_is_due():
                self._tracked(done, total, step, begun)
            yield item
            done += 1
        self._tracked(done, total, step, begun)

    def _tracked(self, done: int, total: Optional[int], step: Optional[str], begun: float) -> None:
        text = step.format(done=done, total=total) if step else None
        left = None
        if total and done:
            left = (time.monotonic() - begun) / done * (total - done)
        self.progress(100 * done / total if total else 0, text, remaining_seconds=left)

    def metric(self, name: str, value: float, step: Optional[float] = None) -> None:
        """Records a value; `step` is where it was measured: the number of an epoch, a row, a bar."""
        self._link.metric(name, value, step)

    def log(self, level: str, text: str, **fields: Any) -> None:
        """Says something about the operation, for people, who read it with the operation.

        `level` is trace, debug, info, warn or error; `fields` are values beside the text. What `logging` says while the function
        runs becomes such lines, too, and so does what it prints.
        """
        if level not in LEVELS:
            raise ValueError(f"{level!r} is no level: {', '.join(LEVELS)}")
        self._link.log(level, str(text), _plain_fields(fields))

    def alive(self) -> None:
        """Says that the work goes on, in a step that takes longer than the stall timeout."""
        self._link.send("alive")

    # ------------------------------------------------------------ whether to go on

    @property
    def is_cancelled(self) -> bool:
        """Whether the operation is to stop."""
        return self._link.cancelled.is_set()

    def check_cancelled(self) -> None:
        """Raises `Cancelled` when the operation is to stop. Call it at least once a second."""
        if self._link.cancelled.is_set():
            raise Cancelled

    def ensure_owner(self) -> None:
        """Raises `Cancelled` when another attempt has taken the operation over. Call it right before an effect that others see."""
        self.check_cancelled()
        if not self._link.ask_owner():
            raise Cancelled

    # ------------------------------------------------------------ where to go on

    def checkpoint(self, state: Any) -> bool:
        """Saves the state with which a later attempt can go on, at most 512 KiB of JSON.

        `state` may be a function that makes it: it is called only when a checkpoint is due (a second after the last one, or
        twenty times as long as that one took). `ValueError` says that it is nested deeper than 99 levels. Returns whether the state was handed over. One that is too large is not, and the
        log says so: write the state to a file of the data directory, and save its name.
        """
        if not self._checkpoint_is_due():
            return False
        begun = time.monotonic()
        text = to_json(plain(state() if callable(state) else state))
        size = len(text.encode("utf-8", "replace"))
        if size <= MAX_CHECKPOINT:
            self._link.checkpoint(text)
        elif not self._is_too_large:
            _log.warning("a checkpoint of %d KiB is not saved: the limit is %d KiB", size // 1024, MAX_CHECKPOINT // 1024)
        self._is_too_large = size > MAX_CHECKPOINT

        now = time.monotonic()
        # In a test, which has no interval, all are due.
        interval = self._link.checkpoint_interval
        self._checkpoint_due = now + (max(interval, 20 * (now - begun)) if interval else 0.0)
        return not self._is_too_large

    def _checkpoint_is_due(self) -> bool:
        # One more may be made when the operation is to stop.
        return self.is_cancelled or time.monotonic() >= self._checkpoint_due

    def last_checkpoint(self, default: Any = None) -> Any:
        """The state that an earlier attempt has saved; `default` when there is none."""
        return default if self._checkpoint is None else self._checkpoint


def _plain_fields(fields: Dict[str, Any]) -> Dict[str, Any]:
    """Those that a message can hold, in which they are one level deeper than other values."""
    kept = {}
    for name, value in fields.items():
        with contextlib.suppress(ValueError):
            kept[name] = plain(value, MAX_DEPTH - 1)
    return kept

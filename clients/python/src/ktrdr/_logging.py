"""What `logging` says becomes log lines of the operation that runs."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Callable, Optional

from ._link import Link

__all__ = ["Handler", "attach", "level_name", "stay_attached"]


def level_name(level: int) -> str:
    """The level of a log line for a level of `logging`."""
    for least, name in ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"), (logging.DEBUG, "debug")):
        if level >= least:
            return name
    return "trace"


class Handler(logging.Handler):
    """Sends records to the worker while an operation runs; prints them otherwise."""

    def __init__(self, current: Callable[[], Optional[Link]]) -> None:
        super().__init__()
        self._current = current
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            # A forked process must not write into the pipe of the worker.
            link = self._current() if os.getpid() == self._pid else None
            fields = {} if record.name == "root" else {"logger": record.name}
            if link is None or not link.log(level_name(record.levelno), text, fields):
                print(text, file=sys.stderr)
        except Exception:
            self.handleError(record)


def attach(current: Callable[[], Optional[Link]]) -> Handler:
    """Attaches the handler to the root logger, in place of handlers that print: what they print would be there twice.

    `logging.config.dictConfig` and `basicConfig(force=True)` take it away again. The next record brings it back.
    """
    root = logging.getLogger()
    if not root.handlers and root.level == logging.WARNING:
        # Nobody has configured it, and this is what it begins with.
        root.setLevel(logging.INFO)
    handler = Handler(current)
    stay_attached(handler)

    make = logging.getLogRecordFactory()

    def attached(*arguments: Any, **named: Any) -> logging.LogRecord:
        if handler not in root.handlers:
            stay_attached(handler)
        return make(*arguments, **named)

    logging.setLogRecordFactory(attached)
    return handler


def stay_attached(handler: Handler) -> None:
    """Attaches the handler again if something took it away, and removes what prints and was attached since."""
    root = logging.getLogger()
    for other in root.handlers[:]:
        if _prints(other):
            root.removeHandler(other)
    root.addHandler(handler)


def _prints(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stderr, sys.stdout)

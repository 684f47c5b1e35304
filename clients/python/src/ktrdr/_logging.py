"""What `logging` says becomes log lines of the operation that runs."""

from __future__ import annotations

import logging
import os
import sys
from typing import Callable, Optional

from ._link import Link

__all__ = ["Handler", "attach", "level_name"]


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


def attach(current: Callable[[], Optional[Link]]) -> None:
    """Attaches the handler to the root logger, in place of handlers that print: what they print would be there twice."""
    root = logging.getLogger()
    printing = [handler for handler in root.handlers if _prints(handler)]
    if not root.handlers and root.level == logging.WARNING:
        # Nobody has configured it, and this is what it begins with.
        root.setLevel(logging.INFO)
    for handler in printing:
        root.removeHandler(handler)
    root.addHandler(Handler(current))


def _prints(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stderr, sys.stdout)

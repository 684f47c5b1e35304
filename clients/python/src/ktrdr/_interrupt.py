"""Stops a function that never looks whether it is cancelled: `interrupt=True`.

A signal reaches the main thread, where the function runs, and its handler raises `Cancelled` there: between two steps of Python, also in
`time.sleep` and while it waits for a file or a socket. Code in C, as of numpy, is not stopped before it returns.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Iterator, Optional

from ._errors import Cancelled
from ._link import Link

__all__ = ["interrupts"]

#: A signal that the system ignores when nobody handles it, so one that comes too late does nothing.
SIGNAL = getattr(signal, "SIGURG", None)

#: When the function is inside this package, and may hold its locks, the signal is sent again after this time, in seconds.
AGAIN = 0.01

_LINK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_link.py")


@contextlib.contextmanager
def interrupts(link: Link) -> Iterator[None]:
    """Raises `Cancelled` in this block when the run is cancelled. Does nothing in another thread than the main one."""
    if SIGNAL is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    main, is_raised = threading.get_ident(), False

    def send() -> None:
        signal.pthread_kill(main, SIGNAL)

    def handle(_: int, frame: Optional[FrameType]) -> None:
        nonlocal is_raised
        # Once only: whatever the function does on its way out is left alone.
        if is_raised or not link.cancelled.is_set():
            return
        if _is_in_link(frame):
            timer = threading.Timer(AGAIN, send)
            timer.daemon = True
            timer.start()
        else:
            is_raised = True
            raise Cancelled

    before = signal.signal(SIGNAL, handle)
    try:
        link.when_cancelled(send)
        yield
    finally:
        # First the handler, which must not raise in what follows.
        signal.signal(SIGNAL, signal.SIG_DFL if before is None else before)
        link.when_cancelled(None)


def _is_in_link(frame: Optional[FrameType]) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _LINK:
            return True
        frame = frame.f_back
    return False

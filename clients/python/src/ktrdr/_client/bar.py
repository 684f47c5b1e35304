"""Shows how far an operation is, on standard error: with tqdm if that is installed, or else in plain text."""

from __future__ import annotations

import sys
from typing import Any, Mapping, Optional, TextIO

__all__ = ["Bar", "bar"]


class Bar:
    """What `wait` shows. `show` gets the operation about once a second."""

    def show(self, operation: Mapping[str, Any]) -> None:
        """Nothing, here."""

    def close(self) -> None:
        """Ends the line."""


def bar(is_wanted: bool) -> Bar:
    """The best one that there is."""
    if not is_wanted:
        return Bar()
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return _Text(sys.stderr)
    return _Tqdm(tqdm(total=100, bar_format="{desc} |{bar}| {percentage:3.0f} %{postfix}"))


class _Tqdm(Bar):
    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm

    def show(self, operation: Mapping[str, Any]) -> None:
        progress = operation.get("progress") or {}
        self._tqdm.set_description_str(f"{operation['operation_type']} {operation['status']}", refresh=False)
        self._tqdm.set_postfix_str(_details(progress), refresh=False)
        self._tqdm.n = progress.get("percentage") or 0
        self._tqdm.refresh()

    def close(self) -> None:
        self._tqdm.close()


class _Text(Bar):
    """One line that is written over in a terminal, and a line for each change elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._shown: Optional[str] = None

    def show(self, operation: Mapping[str, Any]) -> None:
        progress = operation.get("progress") or {}
        percentage = progress.get("percentage") or 0
        text = f"{operation['operation_type']} {operation['status']} {percentage:.1f} % {_details(progress)}".rstrip()
        if text == self._shown:
            return
        self._out.write(f"\r{text:{len(self._shown or '')}}" if self._is_terminal else f"{text}\n")
        self._out.flush()
        self._shown = text

    def close(self) -> None:
        if self._is_terminal and self._shown is not None:
            self._out.write("\n")


def _details(progress: Mapping[str, Any]) -> str:
    # What an engine wrote must not move the cursor of a terminal.
    step = "".join(character for character in str(progress.get("current_step") or "") if character.isprintable())
    left = progress.get("estimated_remaining_seconds")
    return f"{step} ({left} s left)" if left and step else step or (f"{left} s left" if left else "")

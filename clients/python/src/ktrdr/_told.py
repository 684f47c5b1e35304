"""Errors as texts for people."""

from __future__ import annotations

import os
import traceback
from typing import Iterator, List, Set, Tuple

__all__ = ["text_of", "told"]

#: How many errors are told of one, with its causes and the members of groups.
MAX_ERRORS = 10

#: How many frames are told of the error itself, and of each other one.
FRAMES, FRAMES_OF_OTHERS = 20, 5


def text_of(error: BaseException) -> str:
    """What it says. Its own code may fail."""
    try:
        return str(error)
    except Exception as other:
        return f"(its text cannot be made: {type(other).__name__})"


def told(error: BaseException, own: str) -> str:
    """The error first, then where it came from, then in the same way what caused it and the members of a group. Long texts are cut at their
    end. Frames of files in the folder `own` are left out."""
    parts: List[str] = []
    for relation, other in _related("", error, set()):
        if len(parts) == MAX_ERRORS:
            parts.append("further errors are left out")
            break
        parts.append(relation + _with_frames(other, own, FRAMES_OF_OTHERS if parts else FRAMES))
    return "\n".join(parts)


def _related(relation: str, error: BaseException, seen: Set[int]) -> Iterator[Tuple[str, BaseException]]:
    """The error, and those that belong to it. A chain may lead back to itself."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield relation, error

    members = getattr(error, "exceptions", None)
    if isinstance(members, (tuple, list)):  # a group
        for number, member in enumerate(members, 1):
            if isinstance(member, BaseException):
                yield from _related(f"{number} of {len(members)}: ", member, seen)
    if error.__cause__ is not None:
        yield from _related("caused by ", error.__cause__, seen)
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _related("raised while this was handled: ", error.__context__, seen)


def _with_frames(error: BaseException, own: str, most: int) -> str:
    name, said = type(error).__name__, text_of(error)
    text = f"{name}: {said}" if said else name
    for note in getattr(error, "__notes__", None) or ():
        text += f"\n{note}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own + os.sep)]
    if frames:
        text += "\n" + "".join(traceback.format_list(frames[-most:])).rstrip()
    return text

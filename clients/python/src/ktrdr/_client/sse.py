"""Server-sent events: the text that a backend streams, as events."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, Iterator, List, Optional

from .errors import ClientError

__all__ = ["Event", "Parser"]


@dataclasses.dataclass(frozen=True)
class Event:
    """A live event. `docs/events.md` of the project describes the types and their data."""

    #: `operation`, `progress`, `metrics`, `worker` or `reset`; a later backend may have more.
    type: str
    data: Dict[str, Any]
    #: From where a stream can go on; most types have none.
    id: Optional[str] = None

    @property
    def is_end(self) -> bool:
        """Whether it says that an operation has ended."""
        return self.type == "operation" and self.data.get("status") in ("completed", "failed", "cancelled")


class Parser:
    """Takes the text as it comes, in pieces, and makes events of it."""

    def __init__(self) -> None:
        self._rest = ""
        self._type = "message"
        self._id: Optional[str] = None
        self._data: List[str] = []

    def feed(self, text: str) -> Iterator[Event]:
        """The events that this piece completes."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            event = self._line(line.rstrip("\r"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Optional[Event]:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        return None

    def _end(self) -> Optional[Event]:
        kind, data, event_id = self._type, self._data, self._id
        self._type, self._data, self._id = "message", [], None
        return Event(kind, _document("\n".join(data)), event_id) if data else None


def _document(text: str) -> Dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ClientError(f"an event is no JSON object: {text[:200]!r}; is there a KTRDR backend at this address?")
    return document

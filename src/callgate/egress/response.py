"""What came back."""

from __future__ import annotations

from .sse import EventStream

#: What nearly every response is.
JSON = b"application/json"


class Response:
    """A response: status, headers by lower-case name (the last one wins), and either the whole body or, when
    it is ``text/event-stream`` and events were asked for, a running stream.
    """

    __slots__ = ("body", "events", "headers", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self.headers = headers
        self.body = b""
        self.events: EventStream | None = None

    @property
    def content_type(self) -> bytes:
        told = self.headers.get(b"content-type", b"")
        return told if told == JSON else told.partition(b";")[0].strip().lower()

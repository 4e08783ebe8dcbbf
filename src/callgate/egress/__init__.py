"""Everything that leaves by HTTP leaves here: one pooled client, one place where names become addresses."""

from .address import Address, is_loopback, parse_url
from .deadlines import Deadlines
from .guard import Guard, NotPublic, is_public
from .origin import Origin
from .pool import HttpPool, encode_headers
from .response import Response
from .sse import EventStream, SseParser

__all__ = [
    "Address",
    "Deadlines",
    "EventStream",
    "Guard",
    "HttpPool",
    "NotPublic",
    "Origin",
    "Response",
    "SseParser",
    "encode_headers",
    "is_loopback",
    "is_public",
    "parse_url",
]

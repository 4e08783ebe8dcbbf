"""Everything that leaves by HTTP leaves here: one pooled client, one place where names become addresses."""

from .address import Address, parse_url
from .deadlines import Deadlines
from .origin import Origin
from .pool import HttpPool, encode_headers
from .response import Response
from .sse import EventStream, SseParser

__all__ = [
    "Address",
    "Deadlines",
    "EventStream",
    "HttpPool",
    "Origin",
    "Response",
    "SseParser",
    "encode_headers",
    "parse_url",
]

"""What a page is sent: the sender's address, the body of a form, a query."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from callgate.identity import FORM_BYTES, Form, TokenError, read_form

#: Parameters of one query.
MOST_FIELDS = 32


def address_of(request: Request) -> str:
    """Where the request came from, to count by; behind a proxy that is the proxy's, for everybody."""
    return request.client.host if request.client is not None else ""


async def body_of(request: Request) -> bytes:
    """The body, or a beginning of it that is too long for any reader. Raises TokenError."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > FORM_BYTES:
                break  # whoever reads it says so
    except ClientDisconnect:
        raise TokenError("invalid_request", "The body never came.") from None
    return bytes(body)


async def form_of(request: Request) -> Form:
    """Raises TokenError."""
    return read_form(request.headers.get("content-type", ""), await body_of(request))


def query_of(request: Request, most: int, *, strict: bool = False) -> dict[str, str]:
    """The parameters, each at most once: of two ``state`` one reader takes the first, the next one the last.

    ``most`` is in characters; ``strict`` refuses parameters without a ``=`` too. Raises ValueError.
    """
    raw: bytes = request.scope["query_string"]
    if len(raw) > most:
        raise ValueError("the query is too long")
    pairs = parse_qsl(
        raw.decode("ascii"), keep_blank_values=True, strict_parsing=strict and bool(raw), max_num_fields=MOST_FIELDS,
        errors="strict",
    )  # fmt: skip
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found

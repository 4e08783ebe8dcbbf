"""The admin listener's application: who may in, which operation, what goes back.

The lane has checked Host and Origin (DNS rebinding), and every operation knows its reader. Paths are those
of the request line; nothing is derived from the Host header, and nothing redirects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from callgate.api.calls import Log
from callgate.api.operations import OPERATIONS, Operation, Question
from callgate.api.reader import Reader, recognise
from callgate.api.shapes import Failure, Problem, Urls
from callgate.config import Address, parse_address
from callgate.errors import CallgateError, Denied, NotFound, Overloaded, ProtocolError, Unauthenticated, UsageError
from callgate.gateway import House
from callgate.identity import operator_token

log = logging.getLogger("callgate.api")

METRICS = "text/plain; version=0.0.4; charset=utf-8"
LARGEST_BODY = 256 * 1024
STATUS: dict[type[CallgateError], int] = {
    UsageError: 400, Unauthenticated: 401, Denied: 403, NotFound: 404, Overloaded: 503,
}  # fmt: skip
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

Page = Callable[[Request], Awaitable[Response]]


def admin_app(house: House) -> ASGIApp:
    """The application. Makes the operator's token on the first start; raises ``ConfigError``."""
    desk = Desk(house)
    routes = [Route(each.path, desk.page(each), methods=[each.method]) for each in OPERATIONS]
    routes.append(Route("/metrics", desk.metrics, methods=["GET"]))
    app = Starlette(routes=routes, exception_handlers={404: _nothing, 405: _method, 500: _broken})
    app.router.redirect_slashes = False
    return app


def listener(house: House) -> Address:
    """The configured address of the admin listener."""
    address = parse_address(house.settings.admin_listen)
    assert address is not None, "the configuration was checked"
    return address


class Desk:
    """Recognises the reader, has the operation answered, writes the answer."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._log = Log(house)
        self._token = operator_token(house.loaded.data_dir)
        self._loopback = listener(house).loopback
        self._started = time.monotonic()

    def page(self, operation: Operation) -> Page:
        async def answer(request: Request) -> Response:
            try:
                reader = await self._reader(request)
                body = await self._body(request, operation.takes) if operation.takes is not None else None
                asked = Question(
                    self._house, self._log, reader, Urls(**self._house.urls), self._started,
                    request.path_params, _query(request), body,
                )  # fmt: skip
                return _json(await operation.answer(asked))
            except CallgateError as error:
                return refusal(error)

        return answer

    async def metrics(self, request: Request) -> Response:
        """Open on loopback, so that a scraper beside the gateway needs no credential."""
        try:
            if not self._loopback:
                (await self._reader(request)).only_if_everything()
        except CallgateError as error:
            return refusal(error)
        return Response(self._house.metrics.render(), headers={**HEADERS, "content-type": METRICS})

    async def _reader(self, request: Request) -> Reader:
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if len(given) > 1:
            raise Unauthenticated("The request carries two credentials.", hint="Send one.")
        return await recognise(given[0] if given else None, self._token, self._house, loopback=self._loopback)

    async def _body(self, request: Request, takes: type) -> Any:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ProtocolError("The Content-Type must be application/json.", status=415)
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._house.settings.limits.body_timeout):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > LARGEST_BODY:
                        raise ProtocolError(f"The body is larger than {LARGEST_BODY} bytes.", status=413)
            return msgspec.json.decode(b"".join(chunks), type=takes)
        except (TimeoutError, ClientDisconnect):
            raise ProtocolError("The body did not arrive in time.", status=408) from None
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as why:
            raise UsageError(f"The body is not as it should be: {why}.", hint="See /api/v1/openapi.json.") from None


def _query(request: Request) -> dict[str, str]:
    pairs = request.query_params.multi_items()
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UsageError("A query parameter is given twice.")
    return found


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = msgspec.json.encode(value)
    return Response(content, status, {**HEADERS, **(headers or {})}, media_type="application/json")


def refusal(error: CallgateError) -> Response:
    """An error of ours as JSON, with the status that fits its kind."""
    status = error.http_status if isinstance(error, ProtocolError) else 0
    status = status or next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    return _failure(status, error.code, error.message, error.hint)


def _failure(status: int, code: str, message: str, hint: str = "") -> Response:
    headers = {"www-authenticate": 'Bearer realm="callgate"'} if status == 401 else None
    return _json(Failure(Problem(code, message, hint)), status, headers)


async def _nothing(request: Request, error: Exception) -> Response:
    return _failure(404, NotFound.code, "There is nothing here.", "The operations are in /api/v1/openapi.json.")


async def _method(request: Request, error: Exception) -> Response:
    headers = getattr(error, "headers", None) or {}
    failure = _failure(405, UsageError.code, f"{HTTPStatus(405).phrase}.")
    failure.headers.update(headers)
    return failure


async def _broken(request: Request, error: Exception) -> Response:
    log.error("the admin API could not answer %s", request.scope["path"], exc_info=error)
    return _failure(500, "CG0000", "Internal error.", "The log of the gateway has the details.")

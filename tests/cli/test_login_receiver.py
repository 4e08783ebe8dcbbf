"""The port where the answer of a sign-in arrives: one answer, with the right ``state``, from the right issuer."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from callgate.cli import receiver as module
from callgate.cli.receiver import Receiver
from callgate.errors import CallgateError, Denied, Unauthenticated

pytestmark = pytest.mark.anyio
ISSUER = "https://mcp.example.org"


async def send(
    receiver: Receiver, target: str, *, host: str | None = None, method: str = "GET", more: str = ""
) -> bytes:
    host = f"127.0.0.1:{receiver.port}" if host is None else host
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def answer(receiver: Receiver, **fields: str) -> str:
    good = {"code": "the-code", "state": receiver.state, "iss": ISSUER}
    return "/callback?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in {**good, **fields}.items())


def status(reply: bytes) -> int:
    return int(reply.split(b" ")[1])


async def test_the_answer_is_taken_and_a_friendly_page_is_shown() -> None:
    async with Receiver(ISSUER, True) as receiver:
        assert receiver.redirect_uri == f"http://127.0.0.1:{receiver.port}/callback"
        reply = await send(receiver, answer(receiver))
        assert status(reply) == 200 and b"Go back to the terminal" in reply
        assert await receiver.code(5) == "the-code"
    with pytest.raises(ConnectionError):  # nothing listens any more
        await send(receiver, answer(receiver))


async def test_the_page_has_nothing_of_the_request_and_no_scripts() -> None:
    async with Receiver(ISSUER, True) as receiver:
        for target in (answer(receiver, extra="<script>x"), "/<script>x", answer(receiver, state="<script>x")):
            reply = await send(receiver, target)
            assert b"<script" not in reply and b"the-code" not in reply
            assert b"default-src 'none'" in reply and b"cache-control: no-store" in reply
            assert b"referrer-policy: no-referrer" in reply


@pytest.mark.parametrize("state", ["", "wrong", "ä"])
async def test_an_answer_with_another_state_is_refused_and_the_right_one_still_counts(state: str) -> None:
    async with Receiver(ISSUER, True) as receiver:
        assert status(await send(receiver, answer(receiver, state=state, code="attackers"))) == 400
        assert status(await send(receiver, answer(receiver))) == 200
        assert await receiver.code(5) == "the-code"


async def test_a_second_answer_is_refused() -> None:
    async with Receiver(ISSUER, True) as receiver:
        await send(receiver, answer(receiver))
        assert status(await send(receiver, answer(receiver, code="another"))) == 410
        assert await receiver.code(5) == "the-code"


@pytest.mark.rule("OC-5", "OC-6")
@pytest.mark.parametrize("iss", ["https://evil.example", "https://mcp.example.org/", "HTTPS://mcp.example.org", ""])
async def test_an_answer_of_another_issuer_ends_the_sign_in_and_nothing_of_it_is_shown(iss: str) -> None:
    async with Receiver(ISSUER, True) as receiver:
        reply = await send(receiver, answer(receiver, iss=iss, error="access_denied", error_description="call 555"))
        assert status(reply) == 400
        with pytest.raises(Unauthenticated) as caught:
            await receiver.code(5)
        assert not isinstance(caught.value, Denied) and "555" not in str(vars(caught.value))


@pytest.mark.rule("OC-5")
@pytest.mark.parametrize(
    ("required", "named", "taken"), [(True, False, False), (False, False, True), (False, True, True)]
)
async def test_the_table_of_iss(required: bool, named: bool, taken: bool) -> None:
    async with Receiver(ISSUER, required) as receiver:
        target = answer(receiver)
        await send(receiver, target if named else target.partition("&iss=")[0])
        if taken:
            assert await receiver.code(5) == "the-code"
        else:
            with pytest.raises(Unauthenticated):
                await receiver.code(5)


@pytest.mark.parametrize("host", ["evil.example", "localhost:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""])
async def test_a_name_that_was_made_to_point_here_gets_nothing(host: str) -> None:
    """DNS rebinding: the page of another host would be let in by the browser, and says its own name."""
    async with Receiver(ISSUER, True) as receiver:
        assert status(await send(receiver, answer(receiver), host=host.format(port=receiver.port))) == 421
        assert status(await send(receiver, answer(receiver), more=f"Host: 127.0.0.1:{receiver.port}\r\n")) == 421
        with pytest.raises(Unauthenticated, match="Nobody signed in"):
            await receiver.code(0.05)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "", 405),
        ("OPTIONS", "", 405),
        ("GET", "/", 404),
        ("GET", "/favicon.ico", 404),
        ("GET", "//callback", 404),
        ("GET", "/callback/", 404),
        ("GET", "/callback", 400),
        ("GET", "twice", 400),
        ("GET", "/callback?" + "&".join(f"x{n}=1" for n in range(40)), 400),
        ("GET", "/callback?code=%ff", 400),
    ],
)
async def test_what_is_not_the_answer_changes_nothing(method: str, target: str, expected: int) -> None:
    async with Receiver(ISSUER, True) as receiver:
        target = {"": answer(receiver), "twice": answer(receiver) + f"&state={receiver.state}"}.get(target, target)
        assert status(await send(receiver, target, method=method)) == expected
        await send(receiver, answer(receiver))
        assert await receiver.code(5) == "the-code"


async def test_a_request_without_an_end_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    async with Receiver(ISSUER, True) as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        writer.write(b"GET /callback?")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        flood = "/callback?" + "x" * 70_000
        assert status(await send(receiver, flood)) == 400
        await send(receiver, answer(receiver))
        assert await receiver.code(5) == "the-code"


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        ({"error": "access_denied"}, Denied, "was refused"),
        ({"error": "server_error"}, Unauthenticated, "`server_error`"),
        ({"error": "call-this-number"}, Unauthenticated, "does not know"),
        ({"code": ""}, Unauthenticated, "no code"),
    ],
)
async def test_a_refusal_is_told_in_words_of_ours(fields: dict[str, str], kind: type[CallgateError], says: str) -> None:
    async with Receiver(ISSUER, True) as receiver:
        assert status(await send(receiver, answer(receiver, **fields))) == 400
        with pytest.raises(kind, match=says) as caught:
            await receiver.code(5)
        assert "call-this-number" not in str(vars(caught.value))


async def test_every_sign_in_has_a_state_of_its_own() -> None:
    async with Receiver(ISSUER, True) as one, Receiver(ISSUER, True) as other:
        assert one.state != other.state and len(one.state) >= 43
        assert status(await send(other, answer(one))) == 400

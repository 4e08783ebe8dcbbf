"""What commands show to whatever listens where they look for a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from callgate.cli.options import Where
from callgate.cli.remote import Remote
from callgate.errors import CallgateError
from callgate.identity import operator_proof, operator_token
from tests.cli.terminal import Shell

pytestmark = pytest.mark.anyio

Answer = Callable[[str, str], tuple[int, object]]


@asynccontextmanager
async def impostor(answer: Answer, heard: list[bytes]) -> AsyncIterator[str]:
    """Another program on the port; ``answer`` says what by URL and target."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heard.append(head)
        status, said = answer(own, head.split(b" ")[1].decode())
        body = json.dumps(said).encode()
        fixed = b"content-type: application/json\r\nconnection: close\r\n"
        writer.write(b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, fixed, len(body), body))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    own = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield own
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("proof", [None, "", "0" * 64, 5, "passed on"])
async def test_another_program_on_the_port_is_not_shown_the_operators_token(tmp_path: Path, proof: object) -> None:
    """Another user of the machine listens where the gateway did, and names a file that only its owner can read."""
    token = operator_token(tmp_path)

    def answer(own: str, target: str) -> tuple[int, object]:
        if not target.startswith("/healthz"):
            return 401, {"error": {"message": "Who are you?"}}
        told = {"status": "ok", "admin": own, "operator_token_file": str(tmp_path / "operator.token")}
        if proof == "passed on":  # by a real gateway, which says it of its own admin listener
            nonce = target.partition("nonce=")[2]
            return 200, {**told, "operator_proof": operator_proof(token, "http://127.0.0.1:8081", nonce)}
        return 200, told if proof is None else {**told, "operator_proof": proof}

    heard: list[bytes] = []
    async with impostor(answer, heard) as url, Remote(Where(url=url)) as remote:
        with pytest.raises(CallgateError, match="Who are you"):
            await remote.admin("servers")
    assert len(heard) == 2 and not any(token.encode() in each for each in heard)


META = {"resource": "{own}", "authorization_servers": ["{own}"], "issuer": "{own}", "token_endpoint": "{own}/t"}
DEVICE = {"device_authorization_endpoint": "{own}/d", "verification_uri": "{own}/x", "device_code": "d", "interval": 1}
SIGNED = {"access_token": "a.b", "token_type": "bearer"}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"authorization_servers": 5}, {"authorization_servers": "{own}"}, {"authorization_servers": {"{own}": 1}},
    {"issuer": "http://[::1", "authorization_servers": ["http://[::1"]}, {"token_endpoint": "{own}/\x1b[31m"},
    {"verification_uri": "{own}/\x1b]0;x"}, {"verification_uri": "{own}/\nx"}, {"access_token": "a.b\r\nX: y"},
    {"access_token": "\u00e4"}, {"user_code": "BCDF\n\nNow type your password"}, {"user_code": 5}, {"device_code": 5},
], ids=lambda changes: json.dumps(changes)[:40])  # fmt: skip
async def test_a_gateway_that_says_what_none_says(tmp_path: Path, changes: dict[str, object]) -> None:
    """It ends with the status for a gateway that is no good; nothing is kept, and nothing of it is shown."""
    known = {**META, **DEVICE, "user_code": "BCDF-GHJK", **SIGNED, **changes}
    async with impostor(lambda own, target: (200, json.loads(json.dumps(known).replace("{own}", own))), []) as url:
        shell = Shell(tmp_path, url)
        done = await shell.run("login", "--device")
    assert done.status == 7 and "Traceback" not in done.err and not shell.file.exists(), done
    assert "password" not in done.err and "\ufffd" not in done.err


@pytest.mark.slow
async def test_a_gateway_that_refuses_does_not_keep_anybody_signed_in_at_the_others(tmp_path: Path) -> None:
    heard: list[bytes] = []
    (tmp_path / "home").mkdir(mode=0o700)
    shell = Shell(tmp_path / "home", "http://127.0.0.1:1")
    shell.file.parent.mkdir(parents=True, mode=0o700)
    async with impostor(lambda own, target: (400, {"error": "invalid_scope"}), heard) as url:
        urls = [url, url.replace("127.0.0.1", "localhost")]
        known = {each: {"signed_in": {
            "url": each, "issuer": each, "token_endpoint": f"{each}/t", "access_token": "cga", "expires": 1e10,
            "revocation_endpoint": f"{each}/revoke",
        }} for each in urls}  # fmt: skip
        shell.file.touch(mode=0o600)
        shell.file.write_text(json.dumps(known))
        done = await shell.run("logout", "--all")
    assert done.status == 0 and done.err.count("could not be told") == 2, done
    assert json.loads(shell.file.read_text()) == {} and len(heard) == 2

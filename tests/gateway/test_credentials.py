"""The credentials with which callgate reaches a server, and those that a server keeps in its state."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import modern
from tests.gateway.askers import NAME, Client, ModernAsker, asked, asks, elicit, state
from tests.gateway.stand import Stand
from tests.gateway.upstreams import http, serve, text
from tests.servers.raw_http import Peer, Request

pytestmark = pytest.mark.anyio

OURS, THEIRS = "the-credential-of-callgate", "a-token-of-somebody-else's-service"


class Careless(ModernAsker):
    """Keeps a token in its state, as servers should not, and refuses who does not know its password."""

    refuses = False

    def __init__(self) -> None:
        def play(params: dict[str, Any]) -> Any:
            return text("done") if "requestState" in params else asks({"k": elicit()}, requestState=THEIRS * 9)

        super().__init__(ask=play)

    async def __call__(self, request: Request, peer: Peer) -> None:
        assert request.headers["authorization"] == f"Bearer {OURS}"
        if self.refuses:
            peer.body(b"", 401, more=f"www-authenticate: Bearer error={OURS}\r\n")
        else:
            await super().__call__(request, peer)


def spellings(secret: str) -> set[bytes]:
    """The secret as it is, and within base64 at any of the three places that a byte can have there."""
    raw = secret.encode()
    shifted = [base64.urlsafe_b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return {raw, raw.hex().encode(), raw[::-1], *shifted}


@pytest.mark.rule("ELI-1")
@pytest.mark.parametrize("path", ["/mcp", "/servers/u/mcp"])
async def test_no_client_reads_a_credential(tmp_path: Path, path: str) -> None:
    careless, name = Careless(), "u__ask" if path == "/mcp" else "ask"
    async with serve(careless) as server:
        servers = {"u": http(server, headers={"Authorization": f"Bearer {OURS}"})}
        async with Stand(tmp_path, servers) as stand:
            client = Client(stand, path=path)
            first = await client.call(name)
            said = [first, await client.back(first, name, {"k": NAME})]
            assert (list(asked(first)), said[1].json["result"]) == (["k"], text("done"))
            for method in ("server/discover", "tools/list", "ping"):
                said.append(await stand.ask(stand.request(modern(method), path=path)))
            careless.refuses = True
            said.append(await client.call(name))
            assert said[-1].error is not None
        sealed = state(first)
        opened = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    assert careless.got[1]["requestState"] == THEIRS * 9  # it had a way through
    for secret in (OURS, THEIRS):
        for spelling in spellings(secret):
            assert spelling not in opened
            assert not [reply for reply in said if spelling in reply.body + repr(reply.headers).encode()]

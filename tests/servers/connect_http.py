"""A 1Password Connect server, as far as reading items goes, over the scripted HTTP server."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.raw_http import Peer, Request

CANARY = "canary-of-1password"
TOKEN = "eyJ.canary-of-the-connect-token"
VAULT, OTHER, ITEM = "v" * 26, "o" * 26, "i" * 26


def field(id: str, label: str, value: str, section: str = "") -> dict[str, Any]:
    return {"id": id, "type": "CONCEALED", "label": label, "value": value} | (
        {"section": {"id": section}} if section else {}
    )


class ConnectServer:
    """Two vaults; one has items. Filters are those of SCIM, ``eq`` only."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.vaults = [{"id": VAULT, "name": "Team"}, {"id": OTHER, "name": "Empty"}]
        self.items: list[dict[str, Any]] = [
            {
                "id": ITEM, "title": "Docs API", "version": 7, "vault": {"id": VAULT},
                "sections": [{"id": "sec1", "label": "Staging"}, {"id": "sec2", "label": "Live"}],
                "fields": [
                    field("username", "username", "callgate"), field("credential", "API token", CANARY),
                    field("f1", "token", "of-staging", "sec1"), field("f2", "token", "of-live", "sec2"),
                    field("f3", "API token", "in-a-section", "sec1"), field("f4", "empty", ""),
                ],
            }
        ]  # fmt: skip
        self.answer: tuple[int, Any] | None = None

    async def __call__(self, request: Request, peer: Peer) -> None:
        url = urlsplit(request.target)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            peer.json({"status": 401, "message": f"Invalid token {request.headers.get('authorization')}"}, 401)
        elif self.answer is not None:
            peer.json(self.answer[1], self.answer[0], more="location: http://127.0.0.1:1/\r\n")
        elif url.path == "/v1/vaults":
            peer.json(self.filtered(self.vaults, "name", url.query))
        elif url.path == f"/v1/vaults/{VAULT}/items":
            brief = [{key: each[key] for key in ("id", "title", "version", "vault")} for each in self.items]
            peer.json(self.filtered(brief, "title", url.query))
        elif url.path == f"/v1/vaults/{OTHER}/items":
            peer.json([])
        else:
            found = [each for each in self.items if url.path == f"/v1/vaults/{VAULT}/items/{each['id']}"]
            peer.json(found[0] if found else {"status": 404, "message": "Item not found"}, 200 if found else 404)

    @staticmethod
    def filtered(found: list[dict[str, Any]], key: str, query: str) -> list[dict[str, Any]]:
        wanted = re.fullmatch(rf'{key} eq "([^"]*)"', parse_qs(query)["filter"][0])
        assert wanted is not None
        return [each for each in found if each[key].lower() == wanted[1].lower()]

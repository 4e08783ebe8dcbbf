"""Vault or OpenBao as the documentation of its API describes it, over the scripted HTTP server."""

from __future__ import annotations

from typing import Any

from tests.servers.raw_http import Peer, Request

CANARY = "canary-of-the-vault"
TOKEN = "hvs.canary-of-the-token"


class VaultServer:
    """A key/value engine of version 2 at ``mount``, with the Kubernetes auth method at ``auth_mount``."""

    def __init__(self, mount: str = "secret", auth_mount: str = "kubernetes") -> None:
        self.mount = mount
        self.auth_mount = auth_mount
        self.tokens = {TOKEN}
        self.lease = 3600
        self.data: dict[str, dict[str, Any]] = {"apps/docs": {"token": CANARY, "number": 5}}
        self.version = 3
        self.answer: tuple[int, Any] | None = None
        self.silent = False
        self.logins: list[Any] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        if self.silent:
            await peer.closed()
        elif request.target == f"/v1/auth/{self.auth_mount}/login":
            self.login(request, peer)
        elif request.headers.get("x-vault-token") not in self.tokens:
            peer.json({"errors": [f"permission denied: {request.headers.get('x-vault-token')}"]}, 403)
        elif self.answer is not None:
            peer.json(self.answer[1], self.answer[0], more="location: http://127.0.0.1:1/\r\n")
        elif (path := request.target.removeprefix(f"/v1/{self.mount}/data/")) in self.data:
            metadata = {"created_time": "2026-11-20T00:00:00Z", "destroyed": False, "version": self.version}
            peer.json({"request_id": "1", "data": {"data": self.data[path], "metadata": metadata}})
        else:
            peer.json({"errors": []}, 404)

    def login(self, request: Request, peer: Peer) -> None:
        self.logins.append(request.message)
        if request.message != {"role": "callgate", "jwt": "the-service-account"}:
            peer.json({"errors": ["invalid role name"]}, 400)
            return
        token = f"{TOKEN}-{len(self.logins)}"
        self.tokens.add(token)
        peer.json({"auth": {"client_token": token, "lease_duration": self.lease, "renewable": True}})

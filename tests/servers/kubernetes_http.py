"""The API of a Kubernetes cluster, as far as reading secrets goes, over the scripted HTTP server."""

from __future__ import annotations

import base64
from typing import Any

from tests.servers.raw_http import Peer, Request

CANARY = "canary-of-the-cluster"
TOKEN = "eyJ.canary-of-the-service-account"


class KubernetesServer:
    """Secrets by ``namespaces/NAMESPACE/secrets/NAME``, for one service account."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.data: dict[str, dict[str, bytes]] = {
            "namespaces/team/secrets/docs": {"token": CANARY.encode(), "tls.key": b"\xff\x00", "empty": b""}
        }
        self.version = 41
        self.answer: tuple[int, Any] | None = None
        self.silent = False

    async def __call__(self, request: Request, peer: Peer) -> None:
        found = self.data.get(request.target.removeprefix("/api/v1/"))
        if self.silent:
            await peer.closed()
        elif request.headers.get("authorization") != f"Bearer {self.token}":
            peer.json(self.status("Unauthorized", request.headers.get("authorization", "")), 401)
        elif self.answer is not None:
            peer.json(self.answer[1], self.answer[0], more="location: http://127.0.0.1:1/\r\n")
        elif found is None:
            peer.json(self.status("NotFound", "secrets not found"), 404)
        else:
            name = request.target.rpartition("/")[2]
            data = {key: base64.b64encode(value).decode() for key, value in found.items()}
            metadata = {"name": name, "namespace": "team", "resourceVersion": str(self.version)}
            peer.json({"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data, "type": "Opaque"})

    @staticmethod
    def status(reason: str, message: str) -> dict[str, Any]:
        return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}

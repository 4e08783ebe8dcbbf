"""A gateway at whose door people sign in with ``oidc-provider``: both are processes on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.idp.browser import Browser
from tests.idp.oidc import OidcProvider, oidc_provider
from tests.processes import free_port, start_callgate

SECRET = "the secret of callgate at the house"
PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"name": "Alice Ardent", "groups": ["data"], "roles": ["analyst"], "email": "alice@example.org"},
    "bob": {"name": "Bob Brisk", "groups": ["sales"], "roles": [], "email": "bob@example.org"},
}
ALL = {"version": 1, "default": "deny", "rules": [{"id": "all", "allow": ["*/*"]}]}


#: Where the chat application waits for answers. Nobody listens there: the address bar of the browser is enough.
CHAT = "http://127.0.0.1/answer"


class Gatehouse:
    """``base`` is what clients are told and nothing else; ``inside`` is the same without a proxy in front."""

    def __init__(self, idp: OidcProvider, folder: Path, base: str, inside: str, admin: str) -> None:
        self.idp = idp
        self.folder = folder
        self.base = base
        self.inside = inside
        self.admin = admin

    def authorization(self, **changes: str) -> tuple[str, str]:
        """The address at which the chat application has its user sign in, and the verifier that only it knows."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code", "client_id": "chat", "redirect_uri": CHAT, "state": "abc",
            "code_challenge": challenge, "code_challenge_method": "S256", "resource": f"{self.base}/mcp",
        }  # fmt: skip
        return f"{self.base}/oauth/authorize?{urlencode(asked | changes)}", verifier

    def token(self, window: Browser, person: str = "alice") -> str:
        """A person signs in and lets the chat application in: its token."""
        url, verifier = self.authorization()
        window.open(url)
        signs_in(window, person)
        window.wait_for_url("/oauth/authorize")
        window.click("button.main")
        answer = parse_qs(urlsplit(window.wait_for_url(f"{CHAT}?")).query)
        form = {
            "grant_type": "authorization_code", "code": answer["code"][0], "code_verifier": verifier,
            "client_id": "chat", "redirect_uri": CHAT, "resource": f"{self.base}/mcp",
        }  # fmt: skip
        given = httpx.post(f"{self.inside}/oauth/token", data=form, timeout=20).json()
        return str(given["access_token"])

    @property
    def operator_token(self) -> str:
        return (self.folder / "data" / "operator.token").read_text().strip()

    def records(self, method: str = "") -> list[dict[str, Any]]:
        """The audit log, oldest first; those of one method. It is written a moment after an answer."""
        time.sleep(0.3)
        headers = {"Authorization": f"Bearer {self.operator_token}"}
        asked = httpx.get(f"{self.admin}/api/v1/calls", params={"limit": "500"}, headers=headers, timeout=20)
        found: list[dict[str, Any]] = list(reversed(asked.json()["calls"]))
        return [each for each in found if not method or each.get("method") == method]


@contextmanager
def gatehouse(
    folder: Path,
    servers: Mapping[str, Any],
    oauth: Mapping[str, Any],
    *,
    port: int = 0,
    public_url: str = "",
    identity: Mapping[str, Any] | None = None,
    **more: Any,
) -> Iterator[Gatehouse]:
    """Start both. ``public_url`` is that of a proxy in front of ``port``; ``identity`` and ``more`` are further
    settings.
    """
    port, admin = port or free_port(), free_port()
    inside = f"http://127.0.0.1:{port}"
    base = public_url or inside
    (folder / "data").mkdir(mode=0o700)
    secret = folder / "idp.secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    client = {"client_id": "callgate", "client_secret": SECRET, "redirect_uris": [f"{base}/oauth/callback"]}
    with oidc_provider([client], PEOPLE, host="localhost") as idp:
        provider = {
            "issuer": idp.issuer, "client_id": "callgate", "client_secret": "file:idp.secret", "title": "The house",
        }  # fmt: skip
        settings = {
            "listen": f"127.0.0.1:{port}",
            "admin_listen": f"127.0.0.1:{admin}",
            "data_dir": str(folder / "data"),
            "log_level": "warning",
            "startup_wait": 20,
            "watch": False,
            **({"public_url": public_url} if public_url else {}),
            "servers": servers,
            "identity": {
                "providers": {"house": provider},
                "oauth": {"apps": {"chat": {"title": "Team chat", "redirect_uris": [CHAT]}}, **oauth},
                **(identity or {}),
            },
            "policy": ALL,
            **more,
        }
        config = folder / "callgate.yaml"
        config.write_text(json.dumps(settings), "utf-8")
        running, _ = start_callgate(config, folder)
        with running:
            yield Gatehouse(idp, folder, base, inside, f"http://127.0.0.1:{admin}")


def signs_in(window: Browser, person: str = "alice") -> None:
    """Fill in the login page of ``oidc-provider``."""
    window.fill("input[name=login]", person)
    window.fill("input[name=password]", f"pw-{person}")
    window.click("button")

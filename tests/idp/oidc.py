"""The npm package ``oidc-provider`` on loopback: an OpenID Provider that knows nearly every extension."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.npm import install, node_in
from tests.processes import CACHE, Running, free_port

PACKAGES = ["oidc-provider@9.13.3"]
SCRIPT = Path(__file__).with_name("oidc.mjs")


class OidcProvider:
    """A running one. Everybody in ``people`` signs in with the password ``pw-NAME``."""

    def __init__(self, issuer: str, running: Running) -> None:
        self.issuer = issuer
        self.running = running
        self.token_endpoint = f"{issuer}/token"
        self.jwks_uri = f"{issuer}/jwks"


@contextmanager
def oidc_provider(
    clients: list[Mapping[str, Any]],
    people: Mapping[str, Mapping[str, Any]],
    authority: Path | None = None,
    host: str = "127.0.0.1",
    **more: Any,
) -> Iterator[OidcProvider]:
    """Start one with these clients (RFC 7591 metadata), and people with their claims.

    ``resources`` are URIs that access tokens (JWT) may be for, with their scopes; ``registration`` lets anybody
    register; ``documents`` accepts client metadata documents, also of this machine, over TLS that ``authority`` (PEM)
    vouches for. Browsers share cookies between ports, so two at a time need a ``host`` each (`localhost`).
    """
    folder = CACHE / "oidc-provider"
    node = node_in(folder) if (folder / "node_modules" / "oidc-provider").is_dir() else None
    node = node or install(folder, PACKAGES)
    port = free_port()
    issuer = f"http://{host}:{port}"
    with tempfile.TemporaryDirectory(prefix="oidc-") as scratch:
        settings = Path(scratch) / "settings.json"
        settings.write_text(json.dumps({"issuer": issuer, "port": port, "clients": clients, "people": people, **more}))
        env = {"OIDC_PACKAGES": str(folder / "node_modules"), "NODE_ENV": "production"}
        if authority is not None:
            env["NODE_EXTRA_CA_CERTS"] = str(authority)
        with Running("oidc-provider", [str(node), str(SCRIPT), str(settings)], Path(scratch), env=env) as running:
            running.wait_for("listening", 60)
            yield OidcProvider(issuer, running)

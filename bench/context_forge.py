"""Starts IBM ContextForge, in its own environment: one process, SQLite, no plugins, no rate limit, nothing optional on.

Its database is migrated once (that takes long) and kept in the cache folder; every run starts from a copy.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import shutil
import uuid
from pathlib import Path
from time import sleep, time
from typing import Any

import msgspec

from bench.peers import CONTEXT_FORGE, installed
from bench.processes import NotStarted, Program, environment, free_port
from bench.targets import FORGE, FORGE_DEFAULT, Servers, Target
from bench.wire import CLIENT, LEGACY, Door, message

MIGRATED_IN = 180.0
SECRET = "bench-only-secret-of-more-than-32-characters"
PASSWORD = "Bench-only-1-password"
ADMIN = "admin@example.com"
SETTINGS = {
    "ENVIRONMENT": "development",
    "CACHE_TYPE": "memory",
    "PLUGINS_ENABLED": "false",
    "RATE_LIMITING_ENABLED": "false",
    "TOOL_RATE_LIMIT": "1000000",
    "MCPGATEWAY_UI_ENABLED": "false",
    "MCPGATEWAY_ADMIN_API_ENABLED": "false",
    "MCPGATEWAY_A2A_ENABLED": "false",
    "LLMCHAT_ENABLED": "false",
    "LLM_API_ENABLED": "false",
    "SSRF_ALLOW_LOCALHOST": "true",
    "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
    "LOG_LEVEL": "ERROR",
    "JWT_SECRET_KEY": SECRET,
    "AUTH_ENCRYPTION_SECRET": SECRET,
    "BASIC_AUTH_PASSWORD": PASSWORD,
    "DEFAULT_USER_PASSWORD": PASSWORD,
    "PLATFORM_ADMIN_EMAIL": ADMIN,
    "PLATFORM_ADMIN_PASSWORD": PASSWORD,
}


def _part(content: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(msgspec.json.encode(content)).rstrip(b"=")


def token() -> str:
    """An administrator's token (HS256), as ContextForge's own command makes it."""
    now = int(time())
    user = {"email": ADMIN, "full_name": "bench", "is_admin": True, "auth_provider": "cli"}
    claims = {"sub": ADMIN, "iss": "mcpgateway", "aud": "mcpgateway-api", "iat": now, "exp": now + 86400}
    signed = (
        _part({"alg": "HS256", "typ": "JWT"})
        + b"."
        + _part({**claims, "jti": str(uuid.uuid4()), "user": user, "is_admin": True, "teams": None})
    )
    proof = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(proof).rstrip(b"=")).decode()


class Api:
    """Its REST API, as far as it is needed to register servers and open a session."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = token()

    def ask(self, method: str, path: str, body: bytes = b"", session: str = "") -> tuple[int, str, bytes]:
        """Status, session id and body of one request."""
        headers = {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        } | ({"mcp-session-id": session, "mcp-protocol-version": LEGACY} if session else {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("mcp-session-id", ""), answer.read()
        finally:
            connection.close()

    def healthy(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def register(self, name: str, port: int) -> None:
        entry = {"name": name, "url": f"http://127.0.0.1:{port}/mcp", "transport": "STREAMABLEHTTP"}
        body = msgspec.json.encode({**entry, "visibility": "public"})
        status, _session, said = self.ask("POST", "/v1/gateways", body)
        if status >= 300:
            raise NotStarted(f"ContextForge refused to register {name}: {status} {said[:300]!r}")

    def open_session(self) -> str:
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        _status, session, _said = self.ask("POST", "/mcp/", message("initialize", hello, 1, "legacy"))
        self.ask("POST", "/mcp/", message("notifications/initialized", {}, None, "legacy"), session)
        return session


def launch(cache: Path, database: Path, stateful: bool) -> tuple[Program, Api]:
    """Start it on ``database`` and return when it is healthy."""
    python = installed(CONTEXT_FORGE, cache) / "python"
    port = free_port()
    more = {"DATABASE_URL": f"sqlite:///{database}", "USE_STATEFUL_SESSIONS": str(stateful).lower()}
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"} | SETTINGS | more
    command = [str(python), "-c", "from mcpgateway.cli import main; main()", "--host", "127.0.0.1", "--port", str(port)]
    program = Program([*command, "--log-level", "error", "--no-access-log"], env, cwd=database.parent)
    try:
        program.wait_port(port, MIGRATED_IN)
        api = Api(port)
        while not api.healthy():
            sleep(0.01)
        return program, api
    except BaseException:
        program.stop()
        raise


def migrated(cache: Path) -> Path:
    """The database that a first start makes."""
    base = cache / CONTEXT_FORGE.folder / "base.db"
    if not base.exists():
        installed(CONTEXT_FORGE, cache)
        fresh = base.with_name("fresh.db")
        for left in base.parent.glob("fresh.db*"):
            left.unlink()
        launch(cache, fresh, stateful=False)[0].stop()
        fresh.rename(base)
    return base


def start(name: str, servers: Servers, cache: Path, folder: Path) -> Target:
    """ContextForge in front of ``servers`` (HTTP only); ``name`` chooses between the two ways to run it."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "forge.db"
    shutil.copyfile(migrated(cache), database)
    stateful = name == FORGE
    program, api = launch(cache, database, stateful)
    try:
        for server, port in servers.http.items():
            api.register(server, port)
        session = api.open_session() if stateful else ""
        door = Door(api.port, "/mcp/", "legacy" if stateful else "modern", api.token, session)
        return Target(name, door, lambda server: f"{server}-echo", servers).started(program)
    except BaseException:
        program.stop()
        raise


__all__ = ["FORGE", "FORGE_DEFAULT", "start"]

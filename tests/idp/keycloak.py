"""A Keycloak of its published distribution, on loopback, with one realm.

``mvn`` brings the distribution, from whatever repositories the machine's Maven is set up for; a JDK of 17 or later
runs it. Both are kept from run to run; the realm lives in memory and is another one each time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.processes import CACHE, NotReady, Running, free_port

VERSION = "26.7.0"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
REALM = "office"
SECONDS = 240.0


class Keycloak:
    """A running one. ``issuer`` is that of its realm."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.issuer = f"{root}/realms/{REALM}"
        self.token_endpoint = f"{self.issuer}/protocol/openid-connect/token"
        self.jwks_uri = f"{self.issuer}/protocol/openid-connect/certs"

    def token(self, **form: str) -> dict[str, Any]:
        """The answer of the token endpoint, whatever it is."""
        answer: dict[str, Any] = httpx.post(self.token_endpoint, data=form, timeout=30).json()
        return answer

    def password_token(self, user: str, password: str, client: str, secret: str, **more: str) -> str:
        """An access token for a user without a browser (a grant that this realm allows for tests)."""
        form = {"grant_type": "password", "username": user, "password": password}
        answer = self.token(**form, client_id=client, client_secret=secret, scope="openid", **more)
        return str(answer["access_token"])


@contextmanager
def keycloak(realm: Mapping[str, Any], features: str = "") -> Iterator[Keycloak]:
    """Start one with this realm (the export format of Keycloak) and end it."""
    port, management = free_port(), free_port()
    command = [
        "bash", str(_distribution() / "bin" / "kc.sh"), "start-dev", "--http-host=127.0.0.1", f"--http-port={port}",
        f"--http-management-port={management}", "--db=dev-mem", "--log-level=warn",
        *([f"--features={features}"] if features else []),
    ]  # fmt: skip
    password = secrets.token_urlsafe(16)
    env = {
        "JAVA_HOME": str(_java()), "JAVA_OPTS_APPEND": "-Xmx768m",
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": password,
    }  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="keycloak-") as folder,
        Running("keycloak", command, Path(folder), env=env) as running,
    ):
        server = Keycloak(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + SECONDS
        while not _answers(server):
            if not running.alive or time.monotonic() > deadline:
                raise NotReady(f"Keycloak did not start:\n{running.written()[-4000:]}")
            time.sleep(0.3)
        _create(server, password, {"realm": REALM, "enabled": True, "sslRequired": "none", **realm})
        yield server


def _create(server: Keycloak, password: str, realm: Mapping[str, Any]) -> None:
    form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": password}
    answer = httpx.post(f"{server.root}/realms/master/protocol/openid-connect/token", data=form, timeout=60)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    made = httpx.post(f"{server.root}/admin/realms", json=realm, headers=headers, timeout=60)
    if made.status_code != 201:
        raise NotReady(f"Keycloak refused the realm: {made.text[:2000]}")


def _answers(server: Keycloak) -> bool:
    try:
        return httpx.get(f"{server.root}/realms/master", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def _distribution() -> Path:
    """The unpacked distribution, brought by Maven the first time."""
    folder = CACHE / "keycloak"
    home = folder / f"keycloak-{VERSION}"
    if (home / ".complete").is_file():
        return home
    maven = shutil.which("mvn")
    if maven is None:
        raise NotReady("Keycloak is brought by Maven: `mvn` is not on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        maven, "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy", f"-Dartifact={ARTIFACT}",
        f"-DoutputDirectory={folder}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise NotReady(f"Maven could not bring {ARTIFACT}:\n{(done.stdout + done.stderr)[-3000:]}")
    archive = folder / f"keycloak-quarkus-dist-{VERSION}.zip"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    archive.unlink()
    (home / ".complete").touch()
    return home


def _java() -> Path:
    """The home of the newest JDK from 17 on that Keycloak supports."""
    found = {}
    for home in (os.environ.get("JAVA_HOME", ""), *map(str, Path("/usr/lib/jvm").glob("*"))):
        release = Path(home or "/nonexistent") / "release"
        if release.is_file():
            version = next((line for line in release.read_text().splitlines() if line.startswith("JAVA_VERSION=")), "")
            found[version.partition('"')[2].partition(".")[0]] = Path(home)
    for supported in ("25", "21", "17"):
        if supported in found:
            return found[supported]
    raise NotReady("Keycloak needs a JDK of version 17, 21 or 25 (JAVA_HOME)")

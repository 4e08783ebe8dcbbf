"""The suite's scenarios for authorization servers, asked of callgate, at which people sign in with ``oidc-provider``.

The suite prints the address that a person is to open and waits for the answer at its own callback. The person here
follows redirects and sends every form on as it is, with name and password filled in.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from tests.idp.oidc import oidc_provider
from tests.processes import free_port, start_callgate

from .suite import ANY, AUTHORIZATION_SECONDS, COLOUR, Outcome, Suite, SuiteError, emptied, idle, outcome

SCENARIOS = ("authorization-server-metadata-endpoint", "authorization-code-grant")
#: How the suite calls the folders of their results.
PREFIX = "authorization-server-"
CONFIG = """\
listen: 127.0.0.1:{port}
admin_listen: 127.0.0.1:{admin}
data_dir: {data}
watch: false
log_level: warning
identity:
  providers:
    office: {{issuer: "{issuer}", client_id: callgate, client_secret: "file:secret"}}
  oauth:
    scopes: {{read: Read what there is}}
    apps:
      conf: {{title: The conformance suite, redirect_uris: ["http://127.0.0.1/callback"]}}
policy: {{version: 1, default: deny, rules: [{{id: all, allow: ["*/*"]}}]}}
"""
SECRET = "a secret of thirty-two characters"
HOPS = 25


def authorize(suite: Suite, folder: Path, results: Path) -> Outcome:
    """Run the scenarios against a callgate of their own. All of them count."""
    emptied(results)
    folder.mkdir(parents=True, exist_ok=True)
    port, callback = free_port(), free_port()
    (folder / "secret").write_text(SECRET)
    (folder / "data").mkdir()
    client = {
        "client_id": "callgate", "client_secret": SECRET, "redirect_uris": [f"http://127.0.0.1:{port}/oauth/callback"],
    }  # fmt: skip
    with ExitStack() as stack:
        idp = stack.enter_context(oidc_provider([client], {"alice": {"name": "Alice"}}))
        config = folder / "callgate.yaml"
        settings = CONFIG.format(port=port, admin=free_port(), data=json.dumps(str(folder / "data")), issuer=idp.issuer)
        config.write_text(settings, "utf-8")
        running, base = start_callgate(config, folder)
        stack.enter_context(running)
        arguments = ("authorization", "--url", base, "--client-id", "conf", "--resource", f"{base}/mcp")
        command = [str(suite.node), str(suite.package / "dist" / "index.js"), *arguments, "-p", str(callback)]
        lines = _run([*command, "-o", str(results)], results)
    done = outcome(ANY, list(SCENARIOS), lines, frozenset(name.removeprefix(PREFIX) for name in idle(results)))
    if not any(scenario.passed or scenario.failed for scenario in done.scored):
        raise SuiteError("the suite asked nothing of the authorization server:\n" + "\n".join(lines[-20:]))
    return Outcome(ANY, (*done.scored, *done.unscored), ())


def _run(command: list[str], results: Path) -> list[str]:
    """Play the person whenever the suite asks for one; what the suite wrote."""
    child = subprocess.Popen(
        command, cwd=results, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    limit = threading.Timer(AUTHORIZATION_SECONDS, child.kill)
    limit.start()
    lines: list[str] = []
    try:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(COLOUR.sub("", line).rstrip("\n"))
            if found := re.search(r"https?://\S+/oauth/authorize\?\S+", line):
                visit(found[0])
        child.wait(10)
        return lines
    finally:
        limit.cancel()
        child.kill()
        child.wait(10)
        (results / "output.txt").write_text("\n".join(lines), "utf-8")


def visit(url: str) -> str:
    """Go where a browser would go, sending on each form as it is; the last address."""
    with httpx.Client(timeout=20, trust_env=False) as browser:
        response = browser.get(url)
        for _ in range(HOPS):
            here = str(response.url)
            if response.is_redirect:
                response = browser.get(urljoin(here, response.headers["location"]))
                continue
            form = Form()
            form.feed(response.text)
            if form.action is None or urlsplit(here).path == "/callback":
                return here
            response = browser.post(urljoin(here, form.action), data=form.fields, headers={"Origin": _origin(here)})
        raise SuiteError(f"the sign-in did not end after {HOPS} pages; the last one was {response.url}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class Form(HTMLParser):
    """The first form of a page, as it is sent with its first button."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = self._button = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None:
            self.action, self._inside = said.get("action", ""), True
        elif self._inside and tag in ("input", "button") and "name" in said:
            if tag == "button" and self._button:
                return
            self._button = self._button or tag == "button"
            known = {"login": "alice", "password": "pw-alice"}
            self.fields[said["name"]] = known.get(said["name"], said.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False

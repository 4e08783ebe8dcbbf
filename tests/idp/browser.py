"""A headless Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/) of ``chromedriver``."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.processes import NotReady, Running, free_port

#: Chromium looks for its own hosts otherwise, at every start.
FLAGS = (
    "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=900,900",
)  # fmt: skip
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Gone(AssertionError):
    """The page of an element is not there any more."""


class Browser:
    """One window with a profile of its own. What is looked for is waited for, ``patience`` seconds at most."""

    patience = 15.0

    def __init__(self, session: str, client: httpx.Client) -> None:
        self._session = session
        self._client = client

    def open(self, url: str) -> None:
        self._post("url", url=url)

    @property
    def url(self) -> str:
        return str(self._get("url"))

    @property
    def title(self) -> str:
        return str(self._get("title"))

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self._on("body", lambda element: self._get(f"{element}/text")))

    def fill(self, selector: str, value: str) -> None:
        def type_in(element: str) -> None:
            self._post(f"{element}/clear")
            self._post(f"{element}/value", text=value)

        self._on(selector, type_in)

    def click(self, selector: str) -> None:
        self._on(selector, lambda element: self._post(f"{element}/click"))

    def has(self, selector: str) -> bool:
        return bool(self._post("elements", using="css selector", value=selector))

    def wait_for_url(self, part: str) -> str:
        """The address, once it has ``part`` in it."""
        deadline = time.monotonic() + self.patience
        while part not in (url := self.url):
            if time.monotonic() > deadline:
                raise NotReady(f"the browser did not come to {part!r}; it is at {url} and reads:\n{self.text[:2000]}")
            time.sleep(0.05)
        return url

    def wait_for_text(self, part: str) -> str:
        """What the page says, once it says ``part``."""
        deadline = time.monotonic() + self.patience
        text = ""
        while part not in text:
            if time.monotonic() > deadline:
                raise NotReady(f"the page does not say {part!r}; it is {self.url} and reads:\n{text[:2000]}")
            time.sleep(0.05)
            text = self.text
        return text

    def screenshot(self, file: Path, *, dark: bool = False) -> None:
        """A picture of the page as it looks to those who like it light or dark."""
        emulated = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self._post("goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params=emulated)
        file.write_bytes(base64.b64decode(self._get("screenshot")))

    def _on(self, selector: str, act: Callable[[str], Any]) -> Any:
        """Do something with an element (its path), again with that of the next page if its page went away meanwhile."""
        deadline = time.monotonic() + self.patience
        while True:
            element = self._find(selector)
            try:
                return act(f"element/{element}")
            except Gone:
                if time.monotonic() > deadline:
                    raise

    def _find(self, selector: str) -> str:
        deadline = time.monotonic() + self.patience
        while not (found := self._post("elements", using="css selector", value=selector)):
            if time.monotonic() > deadline:
                raise NotReady(f"{selector!r} is not on the page {self.url}:\n{self._get('source')[:3000]}")
            time.sleep(0.05)
        return str(found[0][_ELEMENT])

    def _get(self, path: str) -> Any:
        return _value(self._client.get(f"/session/{self._session}/{path}"))

    def _post(self, path: str, **parameters: Any) -> Any:
        return _value(self._client.post(f"/session/{self._session}/{path}", json=parameters))


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """A window that has never been anywhere. ``flags`` are further ones of Chromium."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        raise NotReady("the browser tests need Debian's `chromium` and `chromium-driver`")
    with tempfile.TemporaryDirectory(prefix="browser-") as scratch:
        port = free_port()
        folder = Path(scratch)
        arguments = [
            *FLAGS,
            *flags,
            f"--user-data-dir={folder / 'profile'}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]
        options = {"binary": chromium, "args": arguments}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        with (
            Running("chromedriver", [driver, f"--port={port}"], folder) as running,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
        ):
            running.wait_for("started successfully", 30)
            session = _value(client.post("/session", json=wanted))["sessionId"]
            try:
                yield Browser(session, client)
            finally:
                client.delete(f"/session/{session}")


def _value(response: httpx.Response) -> Any:
    value = response.json()["value"]
    if response.status_code != 200:
        said = f"{value.get('error')}: {str(value.get('message'))[:500]}"
        away = "stale element" in said or "does not belong to the document" in said
        raise Gone(said) if away else AssertionError(said)
    return value

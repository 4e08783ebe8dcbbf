"""A person's browser without a window: keeps cookies, follows redirects, submits the form of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2

#: Pages and redirects of one way.
MOST = 12


class Form(HTMLParser):
    """The first form of a page that leads on: where it goes, and what it holds. A button's own name counts too."""

    def __init__(self, wanted: str = "") -> None:
        super().__init__()
        self.wanted = wanted
        self.found: tuple[str, dict[str, str]] | None = None
        self._open: tuple[str, dict[str, str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and given.get("method", "").lower() == "post":
            self._open = given.get("action", ""), {}
        elif self._open is not None and tag in ("input", "button") and given.get("name"):
            self._open[1].setdefault(given["name"], given.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._open is not None:
            action, fields = self._open
            if self.found is None and self.wanted in (action, "", *fields.values()):
                self.found = self._open
            self._open = None


def form_of(page: str, wanted: str = "") -> tuple[str, dict[str, str]] | None:
    """Where the first form of a page goes, and its fields; with ``wanted``, of the first that has this value.

    >>> form_of('<form method="post" action="/go"><button name="next" value="yes">Go on</button></form>')
    ('/go', {'next': 'yes'})
    """
    reader = Form(wanted)
    reader.feed(page)
    return reader.found


class Browser:
    """One person's. Its cookies stay for its whole life."""

    def __init__(self) -> None:
        self.cookies = httpx2.Cookies()

    async def until(self, url: str, end: str) -> dict[str, str]:
        """Follow redirects until one leads to ``end``; its query."""
        async with httpx2.AsyncClient(cookies=self.cookies) as http:
            for _ in range(MOST):
                answer = await http.get(url)
                if not answer.has_redirect_location:
                    raise RuntimeError(f"no redirect, but {answer.status_code}: {answer.text[:200]}")
                url = urljoin(url, answer.headers["location"])
                if url.startswith(end):
                    return dict(parse_qsl(urlsplit(url).query))
        raise RuntimeError("too many redirects")

    async def through(self, url: str, wanted: str = "") -> str:
        """Open a page, say yes on it (``wanted`` names which of several), and follow wherever that leads; the text of
        the last page.
        """
        async with httpx2.AsyncClient(cookies=self.cookies, follow_redirects=True) as http:
            answer = await http.get(url)
            for _ in range(MOST):
                form = form_of(answer.text, wanted)
                if form is None:
                    break
                action, fields = form
                here = str(answer.url)
                # A page of ours takes forms only from itself.
                at = urlsplit(here)
                headers = {"origin": f"{at.scheme}://{at.netloc}"}
                answer = await http.post(urljoin(here, action), data=fields, headers=headers)
                wanted = ""
            self.cookies = http.cookies
            return answer.text

"""The page on which a person says whether an application may act in the person's name (rules AS-5 and AS-7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from callgate.gateway.html import page, text
from callgate.identity import Application, Person, Wanted, host_of, redirects

CONSENT = "/oauth/consent"
SIGN_IN = "/oauth/sign-in"


class Asking(msgspec.Struct, frozen=True):
    """What the page shows. ``endpoint`` is a URI, ``words`` says what scopes mean; ``back`` leads to the same page
    again; ``ticket`` and ``token`` bind the form to this request and this browser.
    """

    wanted: Wanted
    app: Application
    person: Person
    endpoint: str
    words: Mapping[str, str]
    back: str
    ticket: str
    token: str


def consent_page(asking: Asking) -> Response:
    wanted, app = asking.wanted, asking.app
    target = wanted.target.redirect_uri
    name = app.title or "an application without a name"
    rows = (
        ("Who asks", who_is(app)),
        ("The answer goes to", redirects.shown(target)),
        ("For", asking.endpoint),
        ("You are", f"{asking.person.name or asking.person.subject} ({host_of(asking.person.issuer)})"),
    )
    cautions = "".join(f'<p class="warning">{text(each)}</p>' for each in warnings(app, target))
    listed = "".join(f"<dt>{text(what)}</dt><dd>{text(said)}</dd>" for what, said in rows)
    switch = f"{SIGN_IN}?prompt=select_account&back={quote(asking.back, safe='')}"
    body = (
        "<p>It could then use this gateway in your name.</p>"
        f"{cautions}<dl>{listed}</dl>{_scopes(wanted.scopes, asking.words)}"
        f'<form method="post" action="{CONSENT}">'
        f'<input type="hidden" name="ticket" value="{text(asking.ticket)}">'
        f'<input type="hidden" name="token" value="{text(asking.token)}">'
        '<div class="choices"><button class="main" name="decision" value="allow">Allow</button>'
        '<button name="decision" value="deny">Deny</button></div></form>'
        f'<p class="soft"><a href="{text(switch)}">Not you?</a></p>'
    )
    return page(f"Let {name} in?", body, form_to=f"'self' {redirects.form_source(target)}")


def warnings(app: Application, target: str) -> list[str]:
    """What a person should know before the answer, most important first."""
    found = []
    if not any(map(redirects.is_https, app.redirect_uris)):
        found.append(
            "This is a program on a computer, and any program there can use its name. "
            "Go on only if you have just started it yourself."
        )
    if app.kind == "registered":
        found.append("This application registered itself: nobody has checked who it is.")
    elif app.kind == "document":
        host = host_of(app.name)
        found.append(f"Your organisation has not checked this application. It is described at {host}.")
        if redirects.is_https(target) and host_of(target) != host:
            found.append(f"The answer does not go to {host}, but to {redirects.shown(target)}.")
    return found


def who_is(app: Application) -> str:
    """Who an application is, and who says so."""
    if not app.title:
        return f"{app.name}, which says no name"
    if app.kind == "document":
        return f"{app.title}, as {host_of(app.name)} describes it"
    if app.kind == "registered":
        return f"{app.title}, as it calls itself"
    return f"{app.title}, an application of your organisation"


def _scopes(scopes: Sequence[str], words: Mapping[str, str]) -> str:
    if not scopes:
        return "<p>Your organisation's rules say what it may call.</p>"
    items = "".join(f"<li>{text(words.get(each) or each)}</li>" for each in scopes)
    return f"<p>Within your organisation's rules it may:</p><ul>{items}</ul>"

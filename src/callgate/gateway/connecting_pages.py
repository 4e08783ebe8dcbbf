"""What the pages say on which a user connects to a server. Every word of somebody else goes through ``text``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from callgate.gateway.html import page, sentence, text

if TYPE_CHECKING:
    from callgate.identity import Connected, Pending
    from callgate.types import Principal

_BACK = '<p class="soft">You can close this page and return to your client.</p>'
_ALL = '<p><a href="/oauth/connections">Everything you are connected to</a></p>'


def question(pending: Pending, who: Principal, ticket: str, token: str, asked_by: Sequence[str] = ()) -> HTMLResponse:
    """Shall callgate use this server for this user? ``asked_by`` are the words for whom ``pending`` names."""
    host = pending.host or pending.issuer
    rows = [
        ("Server", f"<strong>{text(pending.server)}</strong>"),
        ("You sign in at", f"<strong>{text(host)}</strong>"),
        ("The answer is for", text(pending.issuer) if pending.issuer != host else ""),
        ("For", text(name(who))),
        ("Asked by", "<br>".join(text(each) for each in asked_by or pending.asked_by)),
        ("What it allows", _scopes(pending.scopes)),
    ]
    listed = "".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in rows if value)
    body = (
        f"<p>callgate will call this server as you, for your clients and agents, until you disconnect it.</p>"
        f'<dl>{listed}</dl><form class="choices" method="post" action="/oauth/connect/{text(ticket)}">'
        f'<input type="hidden" name="token" value="{text(token)}">'
        f'<input type="hidden" name="agreed" value="{agreement(pending)}">'
        f'<button class="main" name="go" value="yes">Go on to {text(host)}</button>'
        f'<button name="no" value="no">Cancel</button></form>'
    )
    # The form leads to the issuer, and from there to wherever people sign in: browsers hold redirects against the form.
    return page(f"Connect to {pending.server}?", body, form_to="'self' https: http:")


def agreement(pending: Pending) -> str:
    """Names what the user reads on the page: a server may say something else by the time the button is pressed."""
    return hashlib.sha256(repr(pending.agreed).encode()).hexdigest()


def _scopes(scopes: Sequence[str]) -> str:
    if not scopes:
        return "what the server gives by itself"
    return f"<ul>{''.join(f'<li><code>{text(each)}</code></li>' for each in scopes)}</ul>"


def connected(server: str) -> HTMLResponse:
    return page(f"Connected to {server}", f"<p>callgate may use it for you now.</p>{_BACK}{_ALL}")


def declined(server: str) -> HTMLResponse:
    return page("Not connected", f"<p>callgate does not use {text(server)} for you.</p>{_BACK}")


def not_yours(who: Principal, *, signed_in: bool) -> HTMLResponse:
    """Somebody else's page."""
    leave = '<p><a class="button" href="/oauth/sign-in?prompt=select_account">Use another account</a></p>'
    body = (
        f"<p>You are <strong>{text(name(who))}</strong>, and this page was made for another user.</p>"
        '<p class="warning">If somebody sent you this link, leave it: they wanted you to connect an account of yours '
        f"to theirs.</p>{leave if signed_in else ''}"
    )
    return page("This is not for you", body, 403)


def proof(back: str, token: str, wrong: str) -> HTMLResponse:
    """Show the key or token with which the client calls."""
    said = f'<p class="warning">{text(wrong)}</p>' if wrong else ""
    body = (
        f"{said}<p>Show that you are the one who calls: put in the access key or token that your client sends to "
        'callgate. It stays here.</p><form method="post" action="/oauth/prove">'
        f'<input type="hidden" name="token" value="{text(token)}">'
        f'<input type="hidden" name="back" value="{text(back)}">'
        '<label for="key">Access key or token</label>'
        '<input id="key" name="key" type="password" autocomplete="off" required autofocus>'
        '<button class="main">Go on</button></form>'
    )
    return page("Who are you?", body, 401 if wrong else 200)


def connections(who: Principal, has: Sequence[Connected], free: Sequence[str], token: str) -> HTMLResponse:
    """What somebody is connected to, and what there is besides."""
    hidden = f'<input type="hidden" name="token" value="{text(token)}">'
    rows = [_row(each.server, f"at {each.issuer}", "disconnect", "Disconnect", hidden) for each in has]
    rows += [_row(each, "not connected", "connect", "Connect", hidden) for each in free]
    body = f"<p>Servers that callgate uses as <strong>{text(name(who))}</strong>.</p>"
    return page("Connections", body + ("".join(rows) or "<p>There are none.</p>"))


def _row(server: str, about: str, name: str, label: str, hidden: str) -> str:
    main = ' class="main"' if name == "connect" else ""
    return (
        f'<form class="row" method="post" action="/oauth/connections">{hidden}'
        f'<p><strong>{text(server)}</strong> <span class="soft">{text(about)}</span></p>'
        f'<button{main} name="{name}" value="{text(server)}">{label}</button></form>'
    )


def problem(words: str, status: int) -> HTMLResponse:
    return page("This did not work", f"<p>{sentence(words)}</p>{_BACK}", status)


def name(who: Principal) -> str:
    """How somebody is called on a page."""
    for claim in ("name", "preferred_username", "email"):
        if isinstance(said := who.claims.get(claim), str) and said:
            return f"{said} ({who.subject})"
    return who.subject

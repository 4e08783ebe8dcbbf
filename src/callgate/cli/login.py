"""`callgate login`, `callgate logout` and `callgate whoami`."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time
import webbrowser
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from callgate.cli import sign_in
from callgate.cli.kept import KeptSignIns, SignedIn
from callgate.cli.mcp import ask
from callgate.cli.options import GATEWAY, HERE, Output, Where
from callgate.cli.output import emit_value, plain, say
from callgate.cli.remote import Remote, base_of
from callgate.errors import CallgateError, Unauthenticated, UsageError

Url = Annotated[
    str, Parameter(env_var="CALLGATE_URL", group=GATEWAY, help="URL of the gateway, with or without `/mcp`.")
]
Flag = Annotated[bool, Parameter(negative="")]


def login(
    *,
    url: Url = HERE.url,
    device: Flag = False,
    no_browser: Flag = False,
    scope: str | None = None,
    output: Output = None,
) -> int:
    """Sign in at a gateway through your organisation's identity provider. The commands use that sign-in from then on.

    A browser is opened; where there is none, a code is shown to type into a browser elsewhere.

    Parameters
    ----------
    device
        Show a code for a browser elsewhere, also where there is one here.
    no_browser
        Show the address instead of opening a browser; the browser must run on this machine.
    scope
        Scopes to ask for, besides those that you have, separated by spaces.
    """
    if device and no_browser:
        raise UsageError("`--device` needs no browser here; leave out `--no-browser`.")
    signed_in, by_keyring = asyncio.run(_login(url, "device" if device else "show" if no_browser else "", scope or ""))
    who = _claims(signed_in.access_token)
    if output in (None, "table"):
        place = "the keyring" if by_keyring else str(KeptSignIns().file)
        say(f"You are signed in at {signed_in.url} as {who.get('subject') or 'somebody'}. It is kept in {place}.")
    else:
        emit_value({"url": signed_in.url, **who}, output)
    if os.environ.get("CALLGATE_TOKEN"):
        say("CALLGATE_TOKEN is set and goes first: the commands do not use this sign-in.")
    return 0


async def _login(url: str, how: str, scope: str) -> tuple[SignedIn, bool]:
    kept = KeptSignIns()
    async with Remote(Where(url=url)) as remote:
        gateway = await sign_in.find(remote)
        before = kept.get(remote.base) if scope else None
        # The new token replaces the old one (rule OC-10).
        scope = " ".join(dict.fromkeys((*(before.scope.split() if before else gateway.scopes), *scope.split())))
        if how == "device" or not (how or has_browser()) or not gateway.authorization_endpoint:
            signed_in = await sign_in.with_device(remote, gateway, scope, _show_code)
        else:
            signed_in = await sign_in.with_browser(remote, gateway, scope, _show if how else _open)
        async with kept.turn():
            return signed_in, kept.put(signed_in)


def has_browser(env: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether a browser on this machine shows itself to whoever sits in front of this terminal.

    >>> has_browser({"DISPLAY": ":0"}, "linux"), has_browser({}, "linux"), has_browser({"SSH_TTY": "t"}, "darwin")
    (True, False, False)
    """
    if env.get("BROWSER"):
        return True
    if platform in ("darwin", "win32"):
        return not (env.get("SSH_CONNECTION") or env.get("SSH_TTY"))
    return bool(env.get("DISPLAY") or env.get("WAYLAND_DISPLAY"))


async def _show(url: str) -> None:
    say(f"Open this address in a browser on this machine:\n{url}")


async def _open(url: str) -> None:
    say(f"Your browser opens. If it does not, open this address yourself:\n{url}")
    await asyncio.to_thread(webbrowser.open, url)


def _show_code(where: str, code: str) -> None:
    say(f"Open this address in a browser, on any device:\n{where}\nIt shows this code, or asks for it: {code}")


def logout(*, url: Url = HERE.url, everywhere: Annotated[bool, Parameter(name="--all", negative="")] = False) -> int:
    """Sign out: the gateway ends the tokens, and they are deleted here.

    Parameters
    ----------
    everywhere
        Sign out at all gateways.
    """
    kept = KeptSignIns()
    urls = kept.urls() if everywhere else [base_of(url)]
    for each in urls:
        asyncio.run(_logout(kept, each))
    return 0


async def _logout(kept: KeptSignIns, url: str) -> None:
    async with kept.turn():
        found = kept.get(url)
        kept.drop(url)
    if found is None:
        say(f"You are not signed in at {url}.")
        return
    try:
        async with Remote(Where(url=url)) as remote:
            await sign_in.sign_out(remote, found)
    except CallgateError as error:  # whatever it says must not keep anybody signed in at the next one
        say(f"The tokens are deleted here. The gateway could not be told: {error.message}")
        return
    say(f"You are signed out at {url}.")


def whoami(*, output: Output = None, where: Where = HERE) -> int:
    """Show who the gateway says you are: subject, issuer, roles, groups, and until when."""
    told = asyncio.run(_whoami(where))
    if output in (None, "table"):
        for name, value in told.items():
            if value not in ("", [], None):
                print(f"{name}\t{plain(value)}" if not sys.stdout.isatty() else f"{name:<10} {plain(value)}")
    else:
        emit_value(told, output)
    return 0


async def _whoami(where: Where) -> dict[str, Any]:
    async with Remote(where) as remote:
        token = await remote.credential()
        if token is None:
            raise Unauthenticated(f"You are not signed in at {remote.base}.", hint="Run `callgate login`.")
        who = _claims(token)
        await ask(remote, _endpoint(who.get("audience"), remote.base), "server/discover", {})  # does it still hold?
        if not who:
            raise UsageError("A key says nothing of whom it belongs to.", hint="`callgate login` signs you in.")
        return {"url": remote.base, **who}


def _endpoint(audience: object, base: str) -> str:
    """The path of the endpoint that a token opens: its own, or that of everything."""
    path = audience.removeprefix(base) if isinstance(audience, str) and audience.startswith(f"{base}/") else ""
    return path if path.strip("/") else "/mcp"


def _claims(token: str) -> dict[str, Any]:
    """What a token says of its owner, unverified: the gateway does that. Empty for what is no token."""
    try:
        body = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=dict[str, Any])
    except (IndexError, ValueError, msgspec.MsgspecError):
        return {}
    subject, chain = str(claims.get("sub", "")), claims.get("delegation_chain")
    issuer = claims.get("iss")
    if isinstance(chain, list) and "#" in subject:  # a token of callgate's for somebody of another issuer
        issuer, _, subject = subject.partition("#")
    expires = claims.get("exp")
    return {
        "subject": subject,
        "issuer": issuer,
        "client": claims.get("client_id"),
        "groups": claims.get("groups", []),
        "roles": claims.get("roles", []),
        "scopes": str(claims.get("scope", "")).split(),
        "audience": claims.get("aud"),
        "through": [str(each.get("sub")) for each in chain if isinstance(each, dict)]
        if isinstance(chain, list)
        else [],
        "expires": _time(expires) if isinstance(expires, int | float) else None,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(min(max(seconds, 0.0), time.time() + 4e9), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

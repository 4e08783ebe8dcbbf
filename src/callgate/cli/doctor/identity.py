"""Identity providers: their keys can be fetched, and their clocks agree with ours."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime

import msgspec

from callgate.cli.doctor.finding import Finding, Notes
from callgate.config import Issuer, Loaded, Settings, parse_address
from callgate.egress import HttpPool, Response
from callgate.errors import CallgateError

REACH = 5.0


async def identity(loaded: Loaded) -> list[Finding]:
    """Who may come in, and whether the keys of every issuer are there."""
    notes, settings = Notes("identity"), loaded.settings
    if not settings.identity.keys and not settings.identity.jwt and settings.identity.oauth is None:
        notes.ok("anonymous callers on this machine only")
    if settings.identity.keys:
        notes.ok(f"{len(settings.identity.keys)} static keys")
    if settings.identity.oauth is not None:
        known, apps = len(settings.identity.agents), len(settings.identity.oauth.apps)
        notes.ok(f"a token service, with {known} agents and {apps} applications in the configuration")
    admin = parse_address(settings.admin_listen)
    if admin is not None and not admin.loopback:
        notes.warning(
            f"the admin listener is on {admin}, which other machines reach", "Set `admin_listen: 127.0.0.1:8081`."
        )
    for issuer in settings.identity.jwt:
        await _issuer(issuer, loaded, notes)
    for name, provider in settings.identity.providers.items():
        await _provider(name, Issuer(provider.issuer, provider.client_id), settings, notes)
    return notes.found


async def _issuer(issuer: Issuer, loaded: Loaded, notes: Notes) -> None:
    if issuer.jwks_uri is None:
        _document(issuer, (loaded.base / (issuer.jwks_file or "")).read_bytes(), notes)
        return
    response = await _asked(issuer, issuer.jwks_uri, "jwks_uri", notes)
    if response is not None:
        _document(issuer, response.body, notes)
        _skew(issuer, response, notes)


async def _provider(name: str, issuer: Issuer, settings: Settings, notes: Notes) -> None:
    """Where people sign in: it is who we think it is, and what has to be registered there."""
    where = issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
    response = await _asked(issuer, where, "issuer", notes)
    if response is None:
        return
    try:
        itself = msgspec.json.decode(response.body, type=dict[str, object]).get("issuer")
    except msgspec.MsgspecError:
        itself = None
    if itself != issuer.issuer:
        fix = f"Write `issuer: {itself}`." if isinstance(itself, str) else f"{where} must be its discovery document."
        notes.problem(f"{name}: {issuer.issuer} does not call itself so", fix)
        return
    base = (settings.public_url or f"http://{settings.listen}").rstrip("/")
    notes.ok(f"{name}: people sign in at {issuer.issuer}, which must know the redirect URI {base}/oauth/callback")
    _skew(issuer, response, notes)


async def _asked(issuer: Issuer, url: str, key: str, notes: Notes) -> Response | None:
    """What is at this address; ``None`` and a finding where there is nothing. ``key`` is the setting to look at."""
    pool = HttpPool(connect_timeout=REACH)
    try:
        origin = pool.origin(url)
        head = origin.start_line("GET") + b"accept: application/json\r\naccept-encoding: identity\r\n\r\n"
        response = await origin.request(head, asyncio.get_running_loop().time() + REACH, replay=True)
    except CallgateError as error:
        notes.problem(f"{issuer.issuer}: {url} {error.message}", f"Check `{key}` and the network.")
        return None
    finally:
        await pool.aclose()
    if response.status == 200:
        return response
    notes.problem(f"{issuer.issuer}: {url} answered {response.status}", f"Check `{key}`.")
    return None


def _document(issuer: Issuer, raw: bytes, notes: Notes) -> None:
    try:
        keys = msgspec.json.decode(raw, type=dict[str, object]).get("keys")
    except msgspec.MsgspecError:
        keys = None
    where = issuer.jwks_uri or issuer.jwks_file
    if isinstance(keys, list) and keys:
        notes.ok(f"{issuer.issuer}: {len(keys)} keys at {where}")
    else:
        notes.problem(
            f"{issuer.issuer}: {where} holds no keys", 'It must be a JWKS document (RFC 7517): `{"keys": […]}`.'
        )


def _skew(issuer: Issuer, response: Response, notes: Notes) -> None:
    """The provider's clock, from its Date header (whole seconds), against the tolerated difference."""
    try:
        theirs = parsedate_to_datetime(response.headers.get(b"date", b"").decode("latin-1")).timestamp()
    except (TypeError, ValueError):
        return
    difference = time.time() - theirs
    if abs(difference) > issuer.leeway + 1:
        notes.problem(
            f"{issuer.issuer}: its clock differs by {difference:+.0f} s, more than `leeway` ({issuer.leeway:g} s)",
            "Set the clock: `timedatectl set-ntp true`.",
        )
    else:
        notes.ok(f"{issuer.issuer}: its clock agrees ({difference:+.0f} s)")

"""Identity providers: their keys can be fetched, and their clocks agree with ours."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime

import msgspec

from callgate.cli.doctor.finding import Finding, Notes
from callgate.config import Issuer, Loaded, parse_address
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
        notes.ok(f"tokens for {len(settings.identity.agents)} agents")
    admin = parse_address(settings.admin_listen)
    if admin is not None and not admin.loopback:
        notes.warning(
            f"the admin listener is on {admin}, which other machines reach", "Set `admin_listen: 127.0.0.1:8081`."
        )
    for issuer in settings.identity.jwt:
        await _issuer(issuer, loaded, notes)
    return notes.found


async def _issuer(issuer: Issuer, loaded: Loaded, notes: Notes) -> None:
    if issuer.jwks_uri is None:
        _document(issuer, (loaded.base / (issuer.jwks_file or "")).read_bytes(), notes)
        return
    pool = HttpPool(connect_timeout=REACH)
    try:
        origin = pool.origin(issuer.jwks_uri)
        head = origin.start_line("GET") + b"accept: application/json\r\naccept-encoding: identity\r\n\r\n"
        response = await origin.request(head, asyncio.get_running_loop().time() + REACH, replay=True)
    except CallgateError as error:
        notes.problem(f"{issuer.issuer}: {issuer.jwks_uri} {error.message}", "Check `jwks_uri` and the network.")
        return
    finally:
        await pool.aclose()
    if response.status != 200:
        notes.problem(f"{issuer.issuer}: {issuer.jwks_uri} answered {response.status}", "Check `jwks_uri`.")
        return
    _document(issuer, response.body, notes)
    _skew(issuer, response, notes)


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

"""What a provider, or who sits in its place, may try: tokens, answers and documents that do not hold."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jws import JWSRegistry

from tests.identity.provider import ec_key, okp_key, part, public, sign
from tests.identity.signin.attacks import Attack, refused
from tests.identity.signin.idp import CLIENT, SECRET, Browser, Lobby, lobby

pytestmark = pytest.mark.anyio


def claims(**changes: Any) -> Attack:
    def set_claims(stand: Lobby) -> None:
        stand.idp.changes = changes

    return set_claims


def header(**changes: Any) -> Attack:
    def set_header(stand: Lobby) -> None:
        stand.idp.header = changes

    return set_header


def answer(**changes: Any) -> Attack:
    def set_answer(stand: Lobby) -> None:
        stand.idp.answer = changes

    return set_answer


def token(make: Callable[[Lobby, dict[str, Any]], str]) -> Attack:
    """An ID token that ``make`` makes of the right claims."""

    def set_token(stand: Lobby) -> None:
        stand.idp.id_token = lambda nonce, access: make(stand, stand.idp.id_claims(nonce, access))  # type: ignore[method-assign]

    return set_token


def dated(name: str, seconds: float) -> Attack:
    def set_date(stand: Lobby) -> None:
        stand.idp.changes = {name: int(stand.idp.clock() + seconds)}

    return set_date


def with_shared_secret(stand: Lobby, body: dict[str, Any]) -> str:
    """Algorithm confusion: HMAC with the public key as the secret."""
    return hmac_token({"alg": "HS256", "kid": stand.idp.key.kid}, body, stand.idp.key.as_pem(private=False))


def hmac_token(head: dict[str, Any], body: dict[str, Any], secret: bytes) -> str:
    signed = f"{part(head)}.{part(body)}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"


def with_client_secret(stand: Lobby, body: dict[str, Any]) -> str:
    return hmac_token({"alg": "HS256"}, body, SECRET.encode())


def unsigned(stand: Lobby, body: dict[str, Any]) -> str:
    return f"{part({'alg': 'none'})}.{part(body)}."


def without_signature(stand: Lobby, body: dict[str, Any]) -> str:
    return stand_token(stand, body).rpartition(".")[0] + "."


def stand_token(stand: Lobby, body: dict[str, Any]) -> str:
    return sign(stand.idp.key, {"alg": "ES256", "kid": stand.idp.key.kid}, body)


def by_stranger(stand: Lobby, body: dict[str, Any]) -> str:
    return sign(ec_key("stranger"), {"alg": "ES256", "kid": stand.idp.key.kid}, body)


def with_own_key(stand: Lobby, body: dict[str, Any]) -> str:
    """The header brings the key with which it is to be checked."""
    key = ec_key("stranger")
    return sign(key, {"alg": "ES256", "kid": stand.idp.key.kid, "jwk": public(key)}, body)


def by_other_algorithm(stand: Lobby, body: dict[str, Any]) -> str:
    key = okp_key("new")
    stand.idp.keys.append(public(key))
    return sign(key, {"alg": "EdDSA", "kid": "new"}, body)


def changed(stand: Lobby, body: dict[str, Any]) -> str:
    first, _, last = stand_token(stand, body).split(".")
    return f"{first}.{part({**body, 'sub': 'admin'})}.{last}"


def doubled(stand: Lobby, body: dict[str, Any]) -> str:
    raw = json.dumps(body)[:-1] + ', "sub": "admin"}'
    signed = f"{part({'alg': 'ES256', 'kid': stand.idp.key.kid})}.{part(raw.encode())}"
    return f"{signed}.{part(JWSRegistry.algorithms['ES256'].sign(signed.encode(), stand.idp.key))}"


def for_userinfo(**info: Any) -> Attack:
    def set_info(stand: Lobby) -> None:
        stand.idp.changes, stand.idp.info = {"groups": None}, info

    return set_info


def failing(path: str, status: int) -> Attack:
    def set_status(stand: Lobby) -> None:
        stand.idp.status = {path: status}

    return set_status


def both(*attacks: Attack) -> Attack:
    def run(stand: Lobby) -> None:
        for attack in attacks:
            attack(stand)

    return run


TOKENS: dict[str, Attack] = {
    "iss of somebody else": claims(iss="https://evil.example"),
    "iss missing": claims(iss=None),
    "iss with another end": lambda stand: claims(iss=stand.idp.issuer + "/")(stand),
    "aud of another client": claims(aud="another client"),
    "aud missing": claims(aud=None),
    "aud of several, none is ours": claims(aud=["a", "b"], azp=CLIENT),
    "aud of several without azp": claims(aud=[CLIENT, "evil"]),
    "azp of another client": claims(azp="another client"),
    "azp of another client among several": claims(aud=[CLIENT, "evil"], azp="evil"),
    "exp missing": claims(exp=None),
    "exp long ago": dated("exp", -3600),
    "exp as text": claims(exp="9999999999"),
    "iat missing": claims(iat=None),
    "iat in the future": dated("iat", 3600),
    "nbf in the future": dated("nbf", 3600),
    "auth_time in the future": dated("auth_time", 3600),
    "auth_time no date": claims(auth_time="yesterday"),
    "nonce missing": claims(nonce=None),
    "nonce of another attempt": claims(nonce="another"),
    "nonce no text": claims(nonce=["x"]),
    "at_hash of another token": claims(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "at_hash no text": claims(at_hash=1),
    "sub missing": claims(sub=None),
    "sub empty": claims(sub=""),
    "sub no text": claims(sub=1),
    "sub too long": claims(sub="a" * 256),
    "sub with line breaks": claims(sub="a\r\nevil: 1"),
    "sub of an agent of ours": claims(sub="agent:planner"),
    "sub of the operator": claims(sub="operator"),
    "sub of the anonymous": claims(sub="anonymous"),
    "roles in a strange way": claims(roles={"evil": True}),
    "groups left out because of their number": claims(groups=None, _claim_names={"groups": "src1"}),
    "groups cut off because of their number": claims(groups="[SIZE_LIMIT_EXCEEDED]"),
    "roles cut off because of their number": claims(roles=["[SIZE_LIMIT_EXCEEDED]"]),
    "bound to a key": claims(cnf={"jkt": "x"}),
    "alg none": token(unsigned),
    "alg none with another name": header(alg="nOnE"),
    "HS256 with the public key": token(with_shared_secret),
    "HS256 with the client secret": token(with_client_secret),
    "signature cut off": token(without_signature),
    "signed by a stranger": token(by_stranger),
    "with a key of its own": token(with_own_key),
    "an algorithm that is not configured": token(by_other_algorithm),
    "changed after it was signed": token(changed),
    "one name twice": token(doubled),
    "an unknown key": header(kid="unknown"),
    "a critical extension": header(crit=["evil"], evil=1),
    "an access token": header(typ="at+jwt"),
    "a logout token": header(typ="logout+jwt"),
    "an encrypted token": token(lambda stand, body: "a.b.c.d.e"),
    "no token at all": token(lambda stand, body: "evil"),
}  # fmt: skip


@pytest.mark.rule("TOK-5", "AST-11")
@pytest.mark.key("identity.providers.algorithms")
@pytest.mark.parametrize("attack", TOKENS.values(), ids=list(TOKENS))
async def test_id_tokens(tmp_path: Path, attack: Attack) -> None:
    async with lobby(tmp_path, algorithms=["ES256"]) as stand:
        attack(stand)
        browser = Browser()
        await refused(stand, browser, await browser.go(stand.url()), 403)


ANSWERS: dict[str, tuple[Attack, int]] = {
    "no ID token": (answer(id_token=None), 403),
    "an ID token that is no text": (answer(id_token={"evil": 1}), 502),
    "an ID token that is far too large": (claims(more="x" * 70_000), 502),
    "no bearer token": (answer(token_type="evil"), 502),
    "no access token": (answer(access_token=None), 502),
    "an access token with line breaks": (answer(access_token="a\r\nevil: 1"), 502),
    "a huge answer": (answer(more="x" * 300_000), 502),
    "the token endpoint redirects": (failing("/token", 302), 502),
    "the token endpoint fails": (failing("/token", 500), 502),
    "the keys cannot be had": (failing("/jwks", 500), 502),
    "userinfo of somebody else": (for_userinfo(sub="admin", groups=["admins"]), 403),
    "userinfo of nobody": (for_userinfo(groups=["admins"]), 403),
    "userinfo refuses": (both(for_userinfo(sub="alice"), failing("/userinfo", 401)), 502),
    "userinfo in a strange way": (for_userinfo(sub="alice", groups={"evil": 1}), 403),
    "userinfo left groups out": (for_userinfo(sub="alice", _claim_names={"groups": "x"}), 403),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "status"), ANSWERS.values(), ids=list(ANSWERS))
async def test_answers_of_the_provider(tmp_path: Path, attack: Attack, status: int) -> None:
    async with lobby(tmp_path) as stand:
        attack(stand)
        browser = Browser()
        await refused(stand, browser, await browser.go(stand.url()), status)


CLAIMED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an e-mail address that nobody checked": ({"subject_claim": "email"}, {"email": "ceo@example.org"}),
    "one that is said not to be checked": (
        {"subject_claim": "email"}, {"email": "ceo@example.org", "email_verified": False},
    ),
    "one that is checked in a strange way": (
        {"subject_claim": "email"}, {"email": "ceo@example.org", "email_verified": "no"},
    ),
    "a required address that nobody checked": (
        {"required_claims": {"email": "ceo@example.org"}}, {"email": "ceo@example.org"},
    ),
    "the subject claim is missing": ({"subject_claim": "oid"}, {}),
    "another tenant": ({"required_claims": {"tid": "ours"}}, {"tid": "evil"}),
    "no tenant": ({"required_claims": {"tid": "ours"}}, {}),
    "a list that has the tenant": ({"required_claims": {"tid": "ours"}}, {"tid": ["ours", "evil"]}),
    "a private account": ({"required_claims": {"hd": "example.org"}}, {"hd": None}),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "changes"), CLAIMED.values(), ids=list(CLAIMED))
async def test_people_who_may_not_come_in(tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any]) -> None:
    async with lobby(tmp_path, **settings) as stand:
        stand.idp.changes = changes
        browser = Browser()
        await refused(stand, browser, await browser.go(stand.url()), 403)


@pytest.mark.parametrize("known", ["mallory@example.org", None, "ceo@example.org"])
async def test_what_vouches_for_one_address_vouches_for_no_other(tmp_path: Path, known: str | None) -> None:
    """The ID token names an address, the userinfo endpoint one that was checked."""
    async with lobby(tmp_path, subject_claim="email", groups_claim="teams") as stand:
        stand.idp.info = {"sub": "alice", "email": known, "email_verified": True, "teams": ["staff"]}
        stand.idp.changes = {"email": "ceo@example.org"}
        browser = Browser()
        reply = await browser.go(stand.url())
        if known == "ceo@example.org":
            assert (await stand.person(browser)).subject == known
        else:
            await refused(stand, browser, reply, 403)


async def test_a_chain_that_a_provider_claims_is_dropped(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"act": {"sub": "agent:planner"}, "delegation_chain": [{"sub": "agent:planner"}]}
        person = await stand.person(await stand.sign_in())
        assert person is not None and not {"act", "delegation_chain"} & person.claims.keys()


DOCUMENTS: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://evil.example"},
    "no issuer": {"issuer": None},
    "no authorization endpoint": {"authorization_endpoint": None},
    "a script for an authorization endpoint": {"authorization_endpoint": "javascript:alert(1)"},
    "an authorization endpoint without TLS": {"authorization_endpoint": "http://idp.example.org/authorize"},
    "an authorization endpoint with a fragment": {"authorization_endpoint": "http://127.0.0.1:1/a#evil"},
    "a token endpoint without TLS": {"token_endpoint": "http://idp.example.org/token"},
    "a token endpoint that is a file": {"token_endpoint": "file:///etc/passwd"},
    "a token endpoint with a password": {"token_endpoint": "https://evil@idp.example.org/token"},
    "a token endpoint with a line break": {"token_endpoint": "https://idp.example.org/token\r\nevil: 1"},
    "keys without TLS": {"jwks_uri": "http://idp.example.org/jwks"},
    "keys that are no URL": {"jwks_uri": 7},
    "userinfo without TLS": {"userinfo_endpoint": "http://idp.example.org/userinfo"},
    "a way out without TLS": {"end_session_endpoint": "http://idp.example.org/out"},
    "PKCE in the clear only": {"code_challenge_methods_supported": ["plain"]},
    "PKCE of no kind": {"code_challenge_methods_supported": []},
}  # fmt: skip


@pytest.mark.rule("OC-2")
@pytest.mark.parametrize("changes", DOCUMENTS.values(), ids=list(DOCUMENTS))
async def test_discovery_documents(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.said = changes
        browser = Browser()
        await refused(stand, browser, await browser.go(stand.url()), 502)
        assert not stand.idp.asked and not stand.idp.posted

"""Tokens, and the attacks on them. Each refusal performs its attack with real keys against a real provider."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key

from callgate.config import Identity, Issuer
from callgate.errors import ConfigError
from callgate.identity import Recogniser, Refused
from callgate.identity.signatures import ConfiguredAlgorithms

from .provider import AUDIENCE, Clock, Make, Provider, ec_key, fetch, okp_key, part, public, rsa_key, sign

pytestmark = pytest.mark.anyio


async def refused(who: Recogniser, authorization: bytes | str) -> Refused:
    raw = authorization if isinstance(authorization, bytes) else b"Bearer " + authorization.encode()
    with pytest.raises(Refused) as caught:
        await who.recognise(raw)
    assert who.known(raw) is None
    assert caught.value.status == 401
    return caught.value


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(ec_key("k"), "ES256"), (rsa_key("k"), "RS256"), (rsa_key("k"), "PS256"), (okp_key("k"), "EdDSA")],
    ids=["ES256", "RS256", "PS256", "EdDSA"],
)
async def test_a_good_token_is_accepted(make: Make, idp: Provider, key: Key, algorithm: str) -> None:
    idp.keys = [public(key)]
    who = make()
    bearer = idp.bearer(key, {"alg": algorithm}, roles=["dev", "dev", "planner"], groups="staff de")
    assert who.known(bearer) is None
    principal = await who.recognise(bearer)
    assert (principal.subject, principal.issuer, principal.via) == ("alice", idp.issuer, "jwt")
    assert (principal.roles, principal.groups) == (("dev", "planner"), ("staff", "de"))
    assert principal.claims["aud"] == AUDIENCE
    assert principal.expires == idp.clock() + 3600 + 30
    assert who.known(bearer) is principal


async def test_who_was_recognised_holds_until_the_token_expires(make: Make, idp: Provider, clock: Clock) -> None:
    who, other = make(), make(issuer="https://other.example")
    principal = await who.recognise(idp.bearer(ec_key("first")))
    assert who.holds(principal) and not other.holds(principal)
    clock.now = principal.expires
    assert not who.holds(principal)


async def test_a_renewed_token_is_the_same_principal(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    first = await who.recognise(idp.bearer(ec_key("first")))
    clock.now += 100
    renewed = await who.recognise(idp.bearer(ec_key("first"), roles=["dev"]))
    other = await who.recognise(idp.bearer(ec_key("first"), sub="bob"))
    assert first.key == renewed.key != other.key


@pytest.mark.key("identity.jwt.issuer", "identity.jwt.jwks_uri")
async def test_the_same_subject_of_another_issuer_is_another_principal(clock: Clock) -> None:
    async with Provider(clock, ec_key("a")) as one, Provider(clock, ec_key("b")) as two:
        identity = Identity(
            jwt=tuple(Issuer(issuer=p.issuer, audience=AUDIENCE, jwks_uri=p.jwks_uri) for p in (one, two))
        )
        who = Recogniser(identity, loopback=True, fetch=fetch, clock=clock)
        mine = await who.recognise(one.bearer(ec_key("a")))
        theirs = await who.recognise(two.bearer(ec_key("b")))
        await who.aclose()
    assert mine.subject == theirs.subject and mine.key != theirs.key


@pytest.mark.rule("AST-11", "TOK-5")
@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
async def test_attack_alg_none(make: Make, idp: Provider, name: str) -> None:
    head, body = part({"alg": name, "kid": "first"}), part(idp.claims())
    for signature in ("", part(b"x")):
        assert "alg" in (await refused(make(), f"{head}.{body}.{signature}")).reason
    assert idp.requests == 0


@pytest.mark.rule("AST-11", "TOK-5")
async def test_attack_hs256_with_the_public_key_as_secret(make: Make, idp: Provider) -> None:
    key = rsa_key("shared")
    idp.keys = [public(key)]
    for secret in (key.as_pem(private=False), json.dumps(public(key)).encode()):
        signed = f"{part({'alg': 'HS256', 'kid': 'shared'})}.{part(idp.claims())}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert "alg" in (await refused(make(), f"{signed}.{part(mac)}")).reason


@pytest.mark.key("identity.jwt.algorithms")
@pytest.mark.rule("TOK-5")
async def test_attack_algorithm_that_is_not_configured(make: Make, idp: Provider) -> None:
    idp.keys = [public(rsa_key("r"))]
    who = make(algorithms=("ES256",))
    await refused(who, idp.token(rsa_key("r")))
    assert (await make().recognise(idp.bearer(rsa_key("r")))).subject == "alice"


@pytest.mark.rule("TOK-5")
@pytest.mark.parametrize("name", ["none", "HS256", "RS256", "x"])
async def test_the_verifier_itself_knows_only_the_configured_algorithms(name: str) -> None:
    """Should a check before it ever be lost, this one still stands."""
    for allowed in (("ES256",), ()):
        with pytest.raises(UnsupportedAlgorithmError):
            ConfiguredAlgorithms(algorithms=allowed).get_alg(name)


@pytest.mark.rule("TOK-5")
async def test_attack_algorithm_that_does_not_fit_the_key(make: Make, idp: Provider) -> None:
    """The header says RS256, the key of that kid is an EC key; and a key published for RS256 signs PS256."""
    idp.keys = [public(ec_key("first")), public(rsa_key("r"), alg="RS256")]
    who = make()
    body = part(idp.claims())
    await refused(who, f"{part({'alg': 'RS256', 'kid': 'first'})}.{body}.{part(b'x' * 256)}")
    await refused(who, idp.token(rsa_key("r"), {"alg": "PS256"}))
    assert (await who.recognise(idp.bearer(rsa_key("r")))).subject == "alice"


@pytest.mark.rule("AST-11")
async def test_attack_unknown_kid(make: Make, idp: Provider) -> None:
    who = make()
    assert "kid" in (await refused(who, idp.token(ec_key("stranger")))).reason
    assert "kid" in (await refused(who, idp.token(ec_key("first"), {"kid": "../../etc/passwd"}))).reason


@pytest.mark.rule("RS-7")
async def test_attack_known_kid_but_another_key(make: Make, idp: Provider) -> None:
    stranger = ECKey.generate_key("P-256", {"kid": "first"})
    assert "signature" in (await refused(make(), idp.token(stranger))).reason


@pytest.mark.rule("RS-7")
async def test_attack_claims_changed_after_signing(make: Make, idp: Provider) -> None:
    head, _, signature = idp.token(ec_key("first")).split(".")
    await refused(make(), f"{head}.{part(idp.claims(sub='admin'))}.{signature}")


async def test_attack_key_inside_the_token(make: Make, idp: Provider) -> None:
    """`jwk`, `jku` and `x5u` of the header are the attacker's words; only the configured keys count."""
    own = ec_key("mine")
    where = {"jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/cert"}
    for kid in ("mine", "first"):
        await refused(make(), idp.token(own, {"jwk": public(own), "kid": kid, **where}))


@pytest.mark.rule("AST-10")
async def test_attack_issuer_mix_up(clock: Clock) -> None:
    """Issuer B, trusted itself, signs a token that says it is from A: with its own kid, with A's, with none."""
    own_b = ECKey.generate_key("P-256", {"kid": "a"})
    async with Provider(clock, ec_key("a")) as a, Provider(clock, ec_key("b"), own_b) as b:
        identity = Identity(jwt=tuple(Issuer(issuer=p.issuer, audience=AUDIENCE, jwks_uri=p.jwks_uri) for p in (a, b)))
        who = Recogniser(identity, loopback=True, fetch=fetch, clock=clock)
        for key in (ec_key("b"), own_b):
            assert (await who.recognise(b.bearer(key))).issuer == b.issuer
            await refused(who, a.token(key))
        await refused(who, sign(ec_key("b"), {"alg": "ES256"}, a.claims()))
        assert (await who.recognise(a.bearer(ec_key("a")))).issuer == a.issuer
        await who.aclose()


@pytest.mark.key("identity.jwt.audience")
@pytest.mark.rule("RS-7")
@pytest.mark.parametrize("audience", ["somebody-else", ["x", "y"], [], "", None, 7, [7], {"callgate": 1}, "callgate2"])
async def test_attack_token_for_somebody_else(make: Make, idp: Provider, audience: Any) -> None:
    assert "aud" in (await refused(make(), idp.token(ec_key("first"), aud=audience))).reason


@pytest.mark.parametrize("configured", ["callgate", ("other", "callgate")])
@pytest.mark.parametrize("audience", ["callgate", ["x", "callgate"]])
async def test_one_matching_audience_is_enough(
    make: Make, idp: Provider, configured: str | tuple[str, ...], audience: str | list[str]
) -> None:
    principal = await make(audience=configured).recognise(idp.bearer(ec_key("first"), aud=audience))
    assert principal.subject == "alice"


@pytest.mark.key("identity.jwt.issuer")
@pytest.mark.parametrize("issuer", ["https://evil.example", "{}/", "", 7, None, ["{}"]])
async def test_attack_wrong_issuer(make: Make, idp: Provider, issuer: Any) -> None:
    value = issuer.format(idp.issuer) if isinstance(issuer, str) else issuer
    assert "iss" in (await refused(make(), idp.token(ec_key("first"), iss=value))).reason
    assert idp.requests == 0


@pytest.mark.key("identity.jwt.leeway")
@pytest.mark.rule("RS-7")
async def test_attack_expired_token(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    now = int(clock())
    assert (await refused(who, idp.token(ec_key("first"), exp=now - 30))).kind == "expired"
    within_leeway = idp.bearer(ec_key("first"), exp=now - 29)
    assert (await who.recognise(within_leeway)).subject == "alice"
    assert (await refused(make(leeway=0), idp.token(ec_key("first"), exp=now))).kind == "expired"


async def test_expiry_is_told_only_about_tokens_that_the_issuer_signed(make: Make, idp: Provider) -> None:
    stranger = ECKey.generate_key("P-256", {"kid": "first"})
    assert (await refused(make(), idp.token(stranger, exp=1))).kind == "not accepted"


@pytest.mark.rule("RS-7")
@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"exp": "2100-01-01"},
        {"exp": True},
        {"exp": [9999999999]},
        {"exp": 1e300},
        {"exp": -1},
        {"nbf": "now"},
        {"nbf": True},
        {"iat": "now"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["alice"]},
        {"sub": "alice\nadmin"},
        {"sub": "alice\u202e"},
        {"roles": 7},
        {"roles": ["dev", 7]},
        {"roles": {"dev": True}},
        {"groups": [["staff"]]},
        {"groups": ["a\x1b[2J"]},
        {"cnf": {"jkt": "thumbprint"}},
    ],
    ids=str,
)
async def test_attack_claims_that_do_not_hold(make: Make, idp: Provider, changes: dict[str, Any]) -> None:
    await refused(make(), idp.token(ec_key("first"), **changes))


async def test_attack_dates_in_the_future(make: Make, idp: Provider, clock: Clock) -> None:
    who, now = make(), int(clock())
    for name in ("nbf", "iat"):
        assert name in (await refused(who, idp.token(ec_key("first"), **{name: now + 31}))).reason
        assert (await who.recognise(idp.bearer(ec_key("first"), **{name: now + 30}))).subject == "alice"


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "logout+jwt"},
        {"typ": "oauth-id-jag+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": 7},
        {"kid": 7},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": True},
        {"alg": ""},
        {"alg": 256},
        {"alg": None},
    ],
    ids=str,
)
async def test_attack_header_that_no_access_token_has(make: Make, idp: Provider, header: dict[str, Any]) -> None:
    """The signature is real: the signer is asked to sign this very header."""
    await refused(make(), idp.token(ec_key("first"), header))
    assert idp.requests == 0


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "application/at+jwt", "AT+JWT"])
async def test_types_of_access_tokens(make: Make, idp: Provider, kind: str) -> None:
    assert (
        await make().recognise(idp.bearer(ec_key("first"), {"typ": kind, "x5t": "any", "vendor": 1}))
    ).subject == "alice"


@pytest.mark.parametrize(
    "body",
    [
        b'{"iss":"https://evil.example","iss":"ISS"}',
        b'{"a":{"b":1,"b":2},"iss":"ISS"}',
        b'{"iss":"ISS","exp":NaN}',
        b'{"iss":"ISS","exp":Infinity}',
        b'{"iss":"ISS","exp":1e999}',
        b'{"iss":"ISS","exp":' + b"9" * 5000 + b"}",
        b'{"iss":"ISS","exp":' + b"9" * 20 + b"}",
        b'{"iss":"ISS","sub":"\\ud800"}',
        b'{"iss":"ISS","sub":"\xff"}',
        b"[" * 9000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'["ISS"]',
        b'"ISS"',
        b"",
        b"{",
    ],
    ids=range(15),
)
async def test_attack_payload_that_two_readers_would_read_differently(make: Make, idp: Provider, body: bytes) -> None:
    who = make()
    body = body.replace(b"ISS", idp.issuer.encode())
    head = part({"alg": "ES256", "kid": "first"})
    await refused(who, f"{head}.{part(body)}.{part(b'x' * 64)}")
    await refused(who, f"{part(body)}.{part(idp.claims())}.{part(b'x' * 64)}")
    assert idp.requests == 0


@pytest.mark.parametrize(
    "text", ["..", "a..", ".a.", "a.b.c", "e30.e30.e30", "e30=.e30.", "e30.e+0.", "a.b", "a.b.c.d.e"]
)
async def test_attack_things_that_are_no_token(make: Make, idp: Provider, text: str) -> None:
    await refused(make(), text)
    assert idp.requests == 0


async def test_attack_signature_with_other_spelling(make: Make, idp: Provider) -> None:
    """One token has one spelling: padding or stray bits would give one token many cache entries."""
    token = idp.token(ec_key("first"))
    who = make()
    assert (await who.recognise(b"Bearer " + token.encode())).subject == "alice"
    for other in (token + "=", token + "==", token[:-1] + chr(ord(token[-1]) + 1)):
        await refused(who, other)


async def test_a_foreign_chain_is_not_believed(make: Make, idp: Provider) -> None:
    act = {"sub": "agent:root", "act": {"sub": "agent:admin"}}
    principal = await make().recognise(idp.bearer(ec_key("first"), act=act))
    assert principal.chain == ()
    assert "act" not in principal.claims


@pytest.mark.key("identity.jwt.subject_claim", "identity.jwt.roles_claim", "identity.jwt.groups_claim")
async def test_claims_of_other_names(make: Make, idp: Provider) -> None:
    who = make(subject_claim="user.name", roles_claim="realm_access.roles", groups_claim="https://example.org/groups")
    claims = {"user": {"name": "Zoë"}, "realm_access": {"roles": ["dev"]}, "https://example.org/groups": ["staff"]}
    principal = await who.recognise(idp.bearer(ec_key("first"), **claims))
    assert (principal.subject, principal.roles, principal.groups) == ("Zoë", ("dev",), ("staff",))


async def test_a_token_without_kid_needs_exactly_one_candidate(make: Make, idp: Provider) -> None:
    bare = sign(ec_key("first"), {"alg": "ES256"}, idp.claims())
    assert (await make().recognise(b"Bearer " + bare.encode())).subject == "alice"
    idp.keys = [public(ec_key("first")), public(rsa_key("r"))]
    assert (await make().recognise(b"Bearer " + bare.encode())).subject == "alice", "the RSA key is no candidate"
    idp.keys = [public(ec_key("first")), public(ec_key("second"))]
    await refused(make(), bare)


async def test_two_keys_of_one_kid_are_both_tried(make: Make, idp: Provider) -> None:
    twin = ECKey.generate_key("P-256", {"kid": "first"})
    idp.keys = [public(ec_key("first")), public(twin)]
    who = make()
    assert (await who.recognise(idp.bearer(ec_key("first")))).subject == "alice"
    assert (await who.recognise(idp.bearer(twin))).subject == "alice"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"jwks_uri": None}, "either"),
        ({"jwks_file": "keys.json"}, "either"),
        ({"jwks_uri": None, "jwks_file": "absent.json"}, "absent.json"),
        ({"jwks_uri": "ftp://idp.example/keys"}, "address"),
        ({"jwks_uri": "keys.json"}, "address"),
        ({"audience": ""}, "audience"),
        ({"audience": ()}, "audience"),
        ({"audience": ("callgate", "")}, "audience"),
        ({"algorithms": ("none",)}, "none"),
        ({"algorithms": ("RS256", "HS256")}, "HS256"),
        ({"algorithms": ("ES256K",)}, "ES256K"),
    ],
    ids=str,
)
async def test_settings_that_cannot_be_meant(make: Make, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make(**changes)


async def test_one_issuer_twice_is_a_mistake(idp: Provider) -> None:
    issuer = Issuer(issuer=idp.issuer, audience="a", jwks_uri=idp.jwks_uri)
    with pytest.raises(ConfigError, match="twice"):
        Recogniser(Identity(jwt=(issuer, issuer)), loopback=True, fetch=fetch)


async def test_keys_over_plain_http_are_warned_of(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    make()
    assert caplog.text == ""
    make(jwks_uri="http://idp.example/keys")
    assert "without encryption" in caplog.text


@pytest.mark.key("identity.jwt.jwks_file")
async def test_keys_from_a_file(idp: Provider, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": idp.keys}))
    issuer = Issuer(issuer=idp.issuer, audience=AUDIENCE, jwks_file="keys.json")
    who = Recogniser(Identity(jwt=(issuer,)), loopback=True, fetch=fetch, clock=clock, base=tmp_path)
    assert (await who.recognise(idp.bearer(ec_key("first")))).subject == "alice"
    assert idp.requests == 0
    await who.aclose()

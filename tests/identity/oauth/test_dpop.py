"""Proofs of possession, and the attacks on their verifier (rule AST-6)."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from callgate.errors import Overloaded
from callgate.identity import Refused
from callgate.identity.oauth import dpop
from callgate.identity.oauth.dpop import Proofs, plain_url, same_url
from callgate.identity.oauth.nonces import TURN, Nonces
from callgate.identity.oauth.replays import Replays
from callgate.identity.possession import Proof
from tests.identity.provider import Clock, ec_key, okp_key, part, rsa_key

from .keyholder import MINE, THEIRS, ath, bare, proof, signed
from .office import claims_of

URL = "https://mcp.example.org/mcp"
TOKEN = "a.b.c"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def proofs(clock: Clock) -> Proofs:
    return Proofs(clock)


def verify(proofs: Proofs, made: str, **changes: Any) -> Proof:
    asked = {"method": "POST", "url": URL, "token": TOKEN.encode(), **changes}
    return proofs.verify(made.encode(), asked["method"], asked["url"], asked["token"])


def refused(proofs: Proofs, made: str, why: str = "", **changes: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        verify(proofs, made, **changes)
    assert caught.value.kind in ("proof", "nonce") and why in caught.value.reason, caught.value.reason
    return caught.value


def headed(header: dict[str, Any], key: Key = MINE) -> str:
    """A proof whose header is what is given."""
    return signed(key, header, claims_of(proof("POST", URL, TOKEN, key=key)))


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(MINE, "ES256"), (okp_key("k"), "EdDSA"), (rsa_key("k"), "RS256"), (rsa_key("k"), "PS256")],
    ids=["ES256", "EdDSA", "RS256", "PS256"],
)
def test_a_good_proof_holds(proofs: Proofs, key: Key, algorithm: str) -> None:
    for _ in range(2):  # parsed, then remembered
        found = verify(proofs, proof("POST", URL, TOKEN, key=key, header={"alg": algorithm}))
        assert found.jkt == key.thumbprint()


def test_the_thumbprint_is_that_of_the_standard(proofs: Proofs) -> None:
    """RFC 7638, section 3, of the key and the thumbprint in its example."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
        "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8aw"
        "apJzKnqDKgw"
    )
    key = dpop._public_key({"kty": "RSA", "n": modulus, "e": "AQAB"}, "RS256")
    assert key.thumbprint() == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"htm": "GET"}, "htm"),
        ({"htm": "post"}, "htm"),
        ({"htm": None}, "htm"),
        ({"htm": ["POST"]}, "htm"),
        ({"htu": "https://mcp.example.org/mcp/coder"}, "htu"),
        ({"htu": "https://mcp.example.org.evil.example/mcp"}, "htu"),
        ({"htu": "http://mcp.example.org/mcp"}, "htu"),
        ({"htu": "https://mcp.example.org:8443/mcp"}, "htu"),
        ({"htu": "https://mcp.example.org@evil.example/mcp"}, "htu"),
        ({"htu": "https://user@mcp.example.org/mcp"}, "htu"),
        ({"htu": "https://mcp.example.org/x/../mcp"}, "htu"),
        ({"htu": "https://mcp.example.org\\@evil.example/mcp"}, "htu"),
        ({"htu": "/mcp"}, "htu"),
        ({"htu": None}, "htu"),
        ({"htu": [URL]}, "htu"),
        ({"htu": URL + "?" + "x" * 3000}, "htu"),
        ({"ath": ath("x.y.z")}, "ath"),
        ({"ath": None}, "ath"),
        ({"ath": ath(TOKEN) + "="}, "ath"),
        ({"ath": 7}, "ath"),
        ({"ath": "é"}, "ath"),
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": 7}, "jti"),
        ({"jti": "x" * 257}, "jti"),
        ({"iat": None}, "iat"),
        ({"iat": "now"}, "iat"),
        ({"iat": True}, "iat"),
        ({"exp": 1}, "expired"),
        ({"exp": "later"}, "expired"),
    ],
    ids=str,
)
def test_attack_claims_of_another_request(proofs: Proofs, changes: dict[str, Any], why: str) -> None:
    verify(proofs, proof("POST", URL, TOKEN))
    refused(proofs, proof("POST", URL, TOKEN, **changes), why)


@pytest.mark.rule("AST-6")
def test_attack_stale_proofs_and_proofs_for_later(proofs: Proofs, clock: Clock) -> None:
    now = int(clock())
    for holds in (now - 300, now + 300, now):
        verify(proofs, proof("POST", URL, TOKEN, iat=holds))
    for stale in (now - 301, now + 301, 0, 2**60):
        refused(proofs, proof("POST", URL, TOKEN, iat=stale), "iat")


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    "header",
    [
        {"typ": None},
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"typ": "DPoP+JWT"},
        {"typ": ["dpop+jwt"]},
        {"alg": None},
        {"alg": "none"},
        {"alg": "NONE"},
        {"alg": ""},
        {"alg": ["ES256"]},
        {"alg": "ES384"},
        {"alg": "ES256K"},
        {"alg": "RS256"},
        {"alg": "EdDSA"},
        {"alg": "HS256"},
        {"jwk": None},
        {"jwk": "key"},
        {"jwk": []},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
    ],
    ids=str,
)
def test_attack_headers(proofs: Proofs, header: dict[str, Any]) -> None:
    refused(proofs, proof("POST", URL, TOKEN, header=header))


@pytest.mark.rule("AST-6", "AST-11")
def test_attack_a_symmetric_key(proofs: Proofs) -> None:
    """HMAC with a key that stands in the proof, and with the client's public key as the secret."""
    secret = b"s" * 32
    for jwk in ({"kty": "oct", "k": part(secret)}, bare(MINE)):
        key = secret if jwk["kty"] == "oct" else json.dumps(bare(MINE)).encode()
        for algorithm in ("HS256", "ES256"):
            head = part({"typ": "dpop+jwt", "alg": algorithm, "jwk": jwk})
            body = proof("POST", URL, TOKEN).split(".")[1]
            mac = hmac.digest(key, f"{head}.{body}".encode(), hashlib.sha256)
            refused(proofs, f"{head}.{body}.{part(mac)}")


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize("key", [MINE, rsa_key("k"), okp_key("k")], ids=["EC", "RSA", "OKP"])
def test_attack_a_private_key_in_the_proof(proofs: Proofs, key: Key) -> None:
    header = {"typ": "dpop+jwt", "alg": {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}[key.key_type]}
    refused(proofs, headed({**header, "jwk": key.as_dict(private=True)}, key), "private")
    for name in ("d", "p", "k", "oth"):
        refused(proofs, headed({**header, "jwk": {**bare(key), name: "AQAB"}}, key), "private")


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    "key",
    [ECKey.generate_key(name) for name in ("P-384", "P-521", "secp256k1")]
    + [OKPKey.generate_key(name) for name in ("Ed448", "X25519")],
    ids=lambda key: key.curve_name,
)
def test_attack_curves_that_are_not_accepted(proofs: Proofs, key: Key) -> None:
    for algorithm in ("ES256", "ES384", "EdDSA"):
        head = part({"typ": "dpop+jwt", "alg": algorithm, "jwk": bare(key)})
        refused(proofs, f"{head}.{proof('POST', URL, TOKEN).split('.')[1]}.{part(b'x' * 64)}")


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    "changes",
    [
        {"x": part(b"\0" * 32)},
        {"x": part(b"\xff" * 32), "y": part(b"\xff" * 32)},
        {"x": part(b"\0" * 33)},
        {"y": part(b"\1")},
        {"x": 7},
        {"y": None},
        {"crv": "P-521"},
        {"kty": "ec"},
        {"use": "enc"},
        {"alg": "ES384"},
    ],
    ids=str,
)
def test_attack_keys_that_are_none(proofs: Proofs, changes: dict[str, Any]) -> None:
    """Points that are not on the curve, coordinates of another length, keys for something else."""
    refused(proofs, headed({"typ": "dpop+jwt", "alg": "ES256", "jwk": {**bare(MINE), **changes}}))


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    "changes",
    [
        {"n": part(b"\xff" * 8192)},
        {"n": part(b"\xff" * 520)},
        {"n": part(b"\xff" * 128)},
        {"n": part(b"\0" * 4 + b"\xff" * 256)},
        {"n": ""},
        {"n": 7},
        {"e": part(b"\xff" * 512)},
        {"e": part(b"\xff" * 5)},
        {"e": part(b"\1")},
        {"e": part(b"\0\0\1\0\1")},
        {"e": None},
    ],
    ids=lambda changes: next(iter(changes)) + str(len(str(next(iter(changes.values()))))),
)
def test_attack_huge_keys_take_no_time(
    proofs: Proofs, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would take long to verify with is never verified with."""
    monkeypatch.setattr(RSAKey, "import_key", lambda *_: pytest.fail("the key was used"))
    key = rsa_key("k")
    refused(proofs, headed({"typ": "dpop+jwt", "alg": "RS256", "jwk": {**bare(key), **changes}}, key))


@pytest.mark.rule("AST-6")
def test_attack_what_the_header_says_of_other_keys_means_nothing(proofs: Proofs) -> None:
    """The thief names the client's key in every way there is; the proof is the thief's all the same."""
    names = {"kid": MINE.thumbprint(), "jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/", "x5c": ["AAAA"]}
    found = verify(proofs, proof("POST", URL, TOKEN, key=THEIRS, header=names))
    assert found.jkt == THEIRS.thumbprint() != MINE.thumbprint()
    named = {**bare(THEIRS), "kid": MINE.thumbprint()}
    assert verify(proofs, proof("POST", URL, TOKEN, key=THEIRS, header={"jwk": named})).jkt == THEIRS.thumbprint()


@pytest.mark.rule("AST-6")
def test_attack_a_signature_of_another_key(proofs: Proofs) -> None:
    good = proof("POST", URL, TOKEN)
    verify(proofs, good)  # the key is remembered
    head, body, signature = good.split(".")
    forged = signed(THEIRS, {"typ": "dpop+jwt", "alg": "ES256", "jwk": bare(MINE)}, {"jti": "x"})
    for wrong in (
        proof("POST", URL, TOKEN, key=THEIRS, header={"jwk": bare(MINE)}),
        f"{head}.{body}.{forged.split('.')[2]}",
        f"{head}.{proof('POST', URL, TOKEN, key=THEIRS).split('.')[1]}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{part(b'x' * 64)}",
        f"{head}.{body}.{part(bytes(64))}",
        f"{head}.{body}.{signature}A",
    ):
        refused(proofs, wrong)


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "é.é.é",
        " ",
        "x" * 9000,
        "eyJ9.e30.e30",
        "bnVsbA.bnVsbA.bnVsbA",
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_attack_garbage(proofs: Proofs, text: str) -> None:
    refused(proofs, text)


@pytest.mark.rule("AST-6")
def test_attack_two_proofs_in_one_header(proofs: Proofs) -> None:
    one, two = proof("POST", URL, TOKEN), proof("POST", URL, TOKEN, key=THEIRS)
    for joined in (f"{one}, {two}", f"{one},{two}", f"{one} {two}"):
        refused(proofs, joined)


@pytest.mark.rule("AST-6")
def test_attack_names_that_occur_twice(proofs: Proofs) -> None:
    """One reader takes the first of two, the next one the last."""
    body = json.dumps(claims_of(proof("POST", URL, TOKEN)))
    for twice in (body[:-1] + ', "htu": "https://evil.example/"}', '{"htm": "GET", ' + body[1:]):
        refused(proofs, signed(MINE, {"typ": "dpop+jwt", "alg": "ES256", "jwk": bare(MINE)}, twice.encode()), "read")


@pytest.mark.rule("AST-6")
def test_attack_a_huge_header(proofs: Proofs) -> None:
    refused(proofs, proof("POST", URL, TOKEN, header={"x5c": ["A" * 5000]}), "read")


@pytest.mark.rule("TOK-3")
def test_keys_are_remembered_and_proofs_are_not(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    made = proof("POST", URL, TOKEN)
    verify(proofs, made)
    monkeypatch.setattr(dpop, "_read_head", lambda head: pytest.fail("the key was read again"))
    verify(proofs, proof("POST", URL, TOKEN))
    refused(proofs, made, "htm", method="GET")  # the same proof is judged anew


def test_the_memory_of_keys_is_bounded_and_holds_only_keys_that_signed(
    proofs: Proofs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpop, "MOST_KEYS", 3)
    for number in range(5):
        verify(proofs, proof("POST", URL, TOKEN, key=ec_key(f"key {number}")))
        refused(proofs, proof("POST", URL, TOKEN, key=THEIRS, header={"jwk": bare(ec_key(f"other {number}"))}))
    assert len(proofs._known) == 3


def test_urls_in_their_plain_form() -> None:
    for told in (
        "HTTPS://MCP.example.org/mcp", "https://mcp.example.org:443/mcp", "https://mcp.example.org/mcp/",
        "https://mcp.example.org/mcp?session=1#x", "https://mcp.example.org/%6Dcp",
    ):  # fmt: skip
        assert same_url(told, URL), told
    assert plain_url("https://[::1]:8080/mcp") == "https://[::1]:8080/mcp"
    assert plain_url("https://h/a%2fb") == "https://h/a%2Fb" != plain_url("https://h/a/b")
    for none in ("", "mcp", "ftp://h/", "https://", "https://h:x/", "https://ä.example/", "https://h /", "https://[h/"):
        assert plain_url(none) is None and not same_url(none, URL)


# Nonces


def nonces(clock: Clock, key: bytes = b"k" * 32) -> Nonces:
    return Nonces(lambda: key, clock)


@pytest.mark.rule("AST-6")
def test_attack_proofs_that_were_made_in_advance(clock: Clock) -> None:
    ours = nonces(clock)
    proofs = Proofs(clock, ours)
    error = refused(proofs, proof("POST", URL, TOKEN))
    assert error.kind == "nonce" and error.nonce == ours.current()
    verify(proofs, proof("POST", URL, TOKEN, nonce=error.nonce))
    for wrong in ("", "x", 7, None, nonces(clock, b"x" * 32).current(), error.nonce + "="):
        assert refused(proofs, proof("POST", URL, TOKEN, nonce=wrong)).kind == "nonce"
    # Only who has the key of a proof is told a nonce for it.
    assert refused(proofs, proof("POST", URL, TOKEN, key=THEIRS, header={"jwk": bare(MINE)})).nonce == ""
    clock.now += TURN
    verify(proofs, proof("POST", URL, TOKEN, nonce=error.nonce, iat=int(clock())))
    clock.now += TURN
    late = refused(proofs, proof("POST", URL, TOKEN, nonce=error.nonce, iat=int(clock())))
    assert late.kind == "nonce" and late.nonce != error.nonce


def test_every_process_over_one_directory_knows_the_nonces(clock: Clock) -> None:
    assert nonces(clock).holds(nonces(clock).current())


# Replays


def used(replays: Replays, jkt: str, jti: str, issued: float) -> bool:
    try:
        replays.take(Proof(jkt, jti, issued))
    except Refused:
        return True
    return False


@pytest.mark.rule("AST-6")
def test_attack_a_proof_that_was_used_before(clock: Clock) -> None:
    replays = Replays(clock)
    now = clock()
    assert not used(replays, "a", "1", now) and used(replays, "a", "1", now)
    assert not used(replays, "a", "2", now) and not used(replays, "b", "1", now)
    assert used(replays, "a", "1", now + 200)  # the id counts, not when the proof says it was made
    for issued, jti in ((now - 300, "old"), (now + 300, "new")):
        assert not used(replays, "a", jti, issued)
    clock.now += 5
    assert used(replays, "a", "old", now - 300)
    clock.now += 590  # up to the very moment that it would not hold any more
    assert used(replays, "a", "new", now + 300)
    clock.now += 700
    assert not used(replays, "a", "3", clock()) and len(replays) == 1


def overloaded(replays: Replays, jkt: str, jti: str, issued: float) -> bool:
    try:
        replays.take(Proof(jkt, jti, issued))
    except Overloaded:
        return True
    return False


@pytest.mark.rule("AST-6")
def test_attack_one_key_floods_the_memory(clock: Clock) -> None:
    replays = Replays(clock, most=100, most_of_one=60)
    now = clock()
    replays.take(Proof("quiet", "mine", now))
    taken = [not overloaded(replays, "flood", str(number), now) for number in range(200)]
    assert sum(taken) == 60
    assert used(replays, "quiet", "mine", now), "it pushed nobody's proofs out"
    assert [overloaded(replays, "other", str(number), now) for number in range(50)].count(False) == 39
    assert len(replays) == 100
    # The memory is full: who has little still comes in, who has much does not.
    assert not overloaded(replays, "late", "1", now) and not overloaded(replays, "quiet", "2", now)
    assert overloaded(replays, "other", "x", now) and overloaded(replays, "flood", "x", now)
    clock.now += 700
    assert not overloaded(replays, "flood", "again", clock()) and len(replays) == 1


def test_what_many_keys_take_together_is_bounded(clock: Clock) -> None:
    replays = Replays(clock, most=100, most_of_one=100)
    for key in range(60):
        for number in range(20):
            overloaded(replays, str(key), str(number), clock())
    assert len(replays) < 200

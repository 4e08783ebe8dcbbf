from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys

import pytest

from callgate.config import Identity, Key
from callgate.errors import ConfigError, Unauthenticated
from callgate.identity import Recogniser, Refused, hash_key, new_key
from callgate.types import Principal

from .provider import Make, Provider, ec_key

KEY = "cg_the-key-of-ci"
CI = Key(subject="agent:ci", sha256=hash_key(KEY), roles=("coder",), groups=("build",))


async def no_fetch(url: str) -> bytes:
    raise AssertionError(f"nobody should fetch {url}")


def recogniser(*keys: Key, anonymous: bool | None = None, loopback: bool = True) -> Recogniser:
    return Recogniser(Identity(keys=keys, anonymous=anonymous), loopback=loopback, fetch=no_fetch)


def refusal(of: Recogniser, authorization: bytes | None) -> Refused:
    with pytest.raises(Unauthenticated) as caught:
        asyncio.run(of.recognise(authorization))
    assert isinstance(caught.value, Refused)
    return caught.value


def test_who_was_recognised_holds_while_the_key_stands_for_the_same() -> None:
    holder = recogniser(CI).known(b"Bearer " + KEY.encode())
    nobody = recogniser().anonymous
    assert holder is not None and nobody is not None
    assert recogniser(CI).holds(holder) and recogniser().holds(nobody)
    guest = Key(subject=CI.subject, sha256=CI.sha256, roles=("guest",))
    assert not any(each.holds(holder) for each in (recogniser(), recogniser(guest)))
    assert not recogniser(CI).holds(nobody)


@pytest.mark.parametrize(
    ("setting", "keys", "loopback", "admitted"),
    [
        (None, (), True, True),
        (None, (CI,), True, False),
        (True, (CI,), True, True),
        (False, (), True, False),
        (None, (), False, False),
        (True, (), False, False),  # never on a listener that others reach, whatever is configured
    ],
)
def test_who_may_come_without_a_credential(
    setting: bool | None, keys: tuple[Key, ...], loopback: bool, admitted: bool
) -> None:
    who = recogniser(*keys, anonymous=setting, loopback=loopback)
    if not admitted:
        assert who.known(None) is None
        assert refusal(who, None).kind == "missing"
        return
    anonymous = asyncio.run(who.recognise(None))
    assert (anonymous.subject, anonymous.via, anonymous.issuer) == ("anonymous", "anonymous", "")
    assert who.known(None) is anonymous is who.anonymous


@pytest.mark.anyio
async def test_an_issuer_closes_the_door_for_anonymous_callers(make: Make) -> None:
    with pytest.raises(Refused):
        await make().recognise(None)


def test_a_static_key_is_recognised() -> None:
    who = recogniser(CI)
    principal = asyncio.run(who.recognise(b"Bearer " + KEY.encode()))
    assert principal == who.known(b"Bearer " + KEY.encode())
    assert (principal.subject, principal.roles, principal.groups) == ("agent:ci", ("coder",), ("build",))
    assert (principal.via, principal.issuer, principal.claims, principal.expires) == ("key", "", {}, float("inf"))


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "BeArEr   "])
def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    assert asyncio.run(recogniser(CI).recognise(f"{scheme}{KEY} ".encode())).subject == "agent:ci"


def test_only_the_hash_of_a_key_is_in_memory() -> None:
    who = recogniser(CI)
    asyncio.run(who.recognise(b"Bearer " + KEY.encode()))
    assert KEY not in repr([vars(who), who._holders])
    assert list(who._holders) == [hashlib.sha256(KEY.encode()).digest()]


@pytest.mark.rule("RS-9")
@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer    ",
        b"Basic YWxpY2U6c2VjcmV0",
        b"Digest x",
        KEY.encode(),
        b"Bearer wrong",
        b"Bearer " + KEY.encode() + b"x",
        b"Bearer " + KEY.encode()[:-1],
        b"Bearer " + hash_key(KEY).encode(),  # the hash is no key
        b"Bearer " + KEY.encode() + b", Bearer " + KEY.encode(),  # two headers joined
        b"Bearer " + KEY.encode() + b",x",
        b"Bearer k\xc3\xa9y",
        b"Bearer \xff\xfe",
        b"Bearer a\x00b",
        b"Bearer a.b.c",
    ],
)
def test_a_header_that_does_not_hold_is_refused_even_where_anonymous_is_welcome(header: bytes) -> None:
    who = recogniser(CI, anonymous=True)
    error = refusal(who, header)
    assert (error.status, error.exit_code) == (401, 8)
    assert who.known(header) is None
    assert asyncio.run(who.recognise(None)).via == "anonymous"


@pytest.mark.rule("RS-9")
def test_every_request_is_judged_anew() -> None:
    who = recogniser(CI)
    asyncio.run(who.recognise(b"Bearer " + KEY.encode()))
    assert refusal(who, None).kind == "missing"
    assert refusal(who, b"Bearer other").kind == "unknown key"


@pytest.mark.anyio
async def test_a_token_over_16_kib_is_refused_before_anything_reads_it(make: Make, idp: Provider) -> None:
    who = make()
    fits = idp.bearer(ec_key("first"), filler="x" * 11_800)
    assert len(fits) < 16 * 1024 + 7
    assert (await who.recognise(fits)).subject == "alice"
    too_long = idp.bearer(ec_key("first"), filler="x" * 12_300)
    assert len(too_long) > 16 * 1024 + 7
    with pytest.raises(Refused) as caught:
        await who.recognise(too_long)
    assert "longer" in caught.value.reason
    assert len(who._refusals) == 0


@pytest.mark.anyio
async def test_a_refusal_tells_the_caller_little_and_the_log_enough(
    make: Make, idp: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "callgate.identity")
    token = idp.token(ec_key("first"), aud="somebody-else")
    with pytest.raises(Refused) as caught:
        await make().recognise(b"Bearer " + token.encode())
    error = caught.value
    assert (error.kind, error.message) == ("not accepted", "The credential is not accepted.")
    assert "aud" in error.reason and error.reason in caplog.text
    told = " ".join([error.message, error.hint, error.reason, str(error), repr(error), caplog.text])
    assert not any(piece in told for piece in token.split("."))
    assert "aud" not in error.message + error.hint


def test_the_operators_token_is_refused_on_the_gateway_even_when_configured_as_a_key() -> None:
    stolen = "cgo_" + "x" * 43
    who = recogniser(Key(subject="agent:x", sha256=hash_key(stolen)), anonymous=True)
    assert who.known(b"Bearer " + stolen.encode()) is None
    assert "operator" in refusal(who, b"Bearer " + stolen.encode()).reason


def test_one_subject_with_two_keys_is_one_principal_and_two_subjects_are_two() -> None:
    (one, two, other) = (new_key(), new_key(), new_key())
    who = recogniser(
        Key(subject="agent:ci", sha256=one[1]),
        Key(subject="agent:ci", sha256=two[1].upper()),
        Key(subject="agent:cd", sha256=other[1]),
    )
    keys = [asyncio.run(who.recognise(b"Bearer " + key.encode())).key for key, _ in (one, two, other)]
    assert keys[0] == keys[1] != keys[2]


def test_the_same_key_for_two_entries_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="agent:ci"):
        recogniser(CI, Key(subject="agent:cd", sha256=CI.sha256))


@pytest.mark.parametrize("name", ["anonymous", "operator"])
def test_no_key_may_take_a_name_of_the_house(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        recogniser(Key(subject=name, sha256=CI.sha256))


def test_without_issuers_nothing_heavy_is_imported() -> None:
    program = f"""
import asyncio, sys
from callgate.config import Identity, Key
from callgate.identity import Recogniser
async def main():
    who = Recogniser(Identity(keys=(Key(subject="a", sha256="{CI.sha256}"),)), loopback=True, fetch=None)
    who.start()
    assert (await who.recognise(b"Bearer {KEY}")).subject == "a"
    await who.aclose()
asyncio.run(main())
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"joserfc", "cryptography", "ssl", "http", "urllib"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert not {"joserfc", "cryptography"} & set(eval(done.stdout))


@pytest.mark.anyio
async def test_a_replacement_recogniser_keeps_revocations(make: Make, idp: Provider) -> None:
    before, after = make(), make()
    before.revoke(idp.issuer, "alice")
    after.inherit(before)
    with pytest.raises(Refused):
        await after.recognise(idp.bearer(ec_key("first")))
    recogniser(CI).inherit(before)


@pytest.mark.anyio
async def test_without_issuers_there_is_nothing_to_start_or_close() -> None:
    who = recogniser(CI)
    before = asyncio.all_tasks()
    who.start()
    assert asyncio.all_tasks() == before
    await who.aclose()
    assert (await who.recognise(b"Bearer " + KEY.encode())).subject == "agent:ci"


def test_principals_are_frozen() -> None:
    principal: Principal = asyncio.run(recogniser(CI).recognise(b"Bearer " + KEY.encode()))
    with pytest.raises(AttributeError):
        principal.subject = "admin"  # type: ignore[misc]

"""Codes: what they are worth, and to whom. Attacks on the authorization code grant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callgate.config import App
from callgate.identity import Held, Person, Wanted
from callgate.identity.oauth.apps import Application, of_configuration
from callgate.identity.oauth.asked import Target
from callgate.identity.oauth.codes import LIFETIME, Code, Codes
from callgate.identity.oauth.consents import PATIENCE, Consents
from callgate.identity.oauth.problem import TokenError
from callgate.identity.oauth.sessions import Session, Who
from callgate.identity.s256 import s256
from callgate.identity.secrets import Keys
from callgate.store import SqliteHeld, open_database
from tests.identity.oauth.office import KEY, assertion, basic, claims_of, error_of, secret_of
from tests.identity.oauth.reception import DESK, HOUSE, PROGRAM, SITE, Reception, answer, reception
from tests.identity.provider import Clock
from tests.identity.signin.idp import SECRET, Browser

pytestmark = pytest.mark.anyio
GRANT, REQUEST, TARGET = (400, "invalid_grant"), (400, "invalid_request"), (400, "invalid_target")
CLIENT, SCOPE, UNAUTHORIZED = (401, "invalid_client"), (400, "invalid_scope"), (400, "unauthorized_client")


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        yield stand


@pytest.mark.rule("AST-5")
async def test_a_code_is_used_once_and_what_it_gave_ends(stand: Reception) -> None:
    code = await stand.code(SITE)
    tokens = (await stand.redeem(code)).json
    delegated = await stand.through("planner", subject=tokens["access_token"])
    assert (await stand.call_with(delegated)).status == 200
    assert error_of(await stand.redeem(code)) == GRANT
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert (await stand.call_with(delegated)).status == 401
    assert error_of(await stand.refresh(tokens["refresh_token"])) == GRANT
    assert error_of(await stand.exchange("planner", tokens["access_token"])) == GRANT
    record = next(each for each in await stand.records() if "used before" in each.get("reason", ""))
    assert record["args"]["event"] == "code used twice" and record["args"]["person"].endswith("#alice")


@pytest.mark.rule("AST-5")
async def test_of_many_at_once_at_most_one_gets_something_that_stays(stand: Reception) -> None:
    code = await stand.code(SITE)
    replies = await asyncio.gather(*(stand.redeem(code) for _ in range(5)))
    given = [each.json for each in replies if each.status == 200]
    assert len(given) <= 1  # none, where a later one ends the code before the first has its tokens
    assert [error_of(reply) for reply in replies if reply.status != 200] == [GRANT] * (5 - len(given))
    for each in given:
        assert error_of(await stand.refresh(each["refresh_token"])) == GRANT
        assert (await stand.call_with(each["access_token"])).status == 401


WRONG: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "no verifier": ({"code_verifier": None}, REQUEST),
    "an empty verifier": ({"code_verifier": ""}, REQUEST),
    "another verifier": ({"code_verifier": "a" * 64}, GRANT),
    "a short verifier": ({"code_verifier": "a" * 42}, GRANT),
    "a long verifier": ({"code_verifier": "a" * 129}, GRANT),
    "a verifier of other signs": ({"code_verifier": "+" * 50}, GRANT),
    "another address": ({"redirect_uri": "https://evil.example/cb"}, GRANT),
    "an address with more": ({"redirect_uri": "https://site.example/cb/"}, GRANT),
    "another application's address": ({"redirect_uri": "https://house.example/cb"}, GRANT),
    "no code": ({"code": None}, REQUEST),
    "a made-up code": ({"code": "cgc_" + "a" * 43}, GRANT),
    "another public application": ({"client_id": PROGRAM}, GRANT),
    "a trusted application": ({"client_id": HOUSE}, GRANT),
    "nobody": ({"client_id": None}, CLIENT),
    "an unknown application": ({"client_id": "unknown"}, CLIENT),
    "an agent by its name": ({"client_id": "planner"}, CLIENT),
    "an application with a secret by its name": ({"client_id": DESK}, CLIENT),
    "a public application with a secret": ({"client_secret": "x"}, CLIENT),
    "more scope": ({"scope": "read write admin"}, SCOPE),
    "another endpoint": ({"resource": "/servers/u/mcp"}, (200, "")),
    "another resource": ({"resource": "https://evil.example/mcp"}, TARGET),
    "the gateway as a whole": ({"resource": "/"}, TARGET),
}


@pytest.mark.rule("AST-5")
@pytest.mark.parametrize(("changes", "error"), WRONG.values(), ids=WRONG)
async def test_a_code_in_wrong_hands(stand: Reception, changes: dict[str, Any], error: tuple[int, str]) -> None:
    reply = await stand.redeem(await stand.code(SITE), **changes)
    if error[0] == 200:  # below what was agreed to there is less, which may be asked for
        assert claims_of(reply.json["access_token"])["aud"] == f"{stand.base}/servers/u/mcp"
    else:
        assert error_of(reply) == error


@pytest.mark.rule("AST-5")
async def test_a_code_that_somebody_tried_is_worth_nothing(stand: Reception) -> None:
    code = await stand.code(SITE)
    assert error_of(await stand.redeem(code, code_verifier="a" * 50)) == GRANT
    assert error_of(await stand.redeem(code)) == GRANT
    code = await stand.code(SITE)
    assert error_of(await stand.redeem(code, client_id=PROGRAM)) == GRANT
    assert error_of(await stand.redeem(code)) == GRANT


async def test_the_challenge_itself_is_no_verifier(stand: Reception) -> None:
    code = await stand.code(SITE)
    assert error_of(await stand.redeem(code, code_verifier=s256(stand.verifier.encode()))) == GRANT


async def test_a_code_of_another_sign_in_is_not_injected(stand: Reception) -> None:
    """The attacker's code does not fit the verifier that the victim's application made."""
    stand.idp.user = "mallory"
    mallory = await stand.sign_in(Browser())
    injected = await stand.code(SITE, browser=mallory)
    await stand.code(SITE)  # the victim's own, whose verifier is now in use
    assert error_of(await stand.redeem(injected)) == GRANT


async def test_an_application_with_a_secret_proves_it(stand: Reception) -> None:
    code = await stand.code(DESK)
    fields = {
        "grant_type": "authorization_code", "code": code, "code_verifier": stand.verifier, "client_id": DESK,
    }  # fmt: skip
    for more, headers in (
        ({}, ()),
        ({"client_secret": "wrong"}, ()),
        ({}, (("Authorization", basic(DESK, "wrong")),)),
        ({}, (("Authorization", basic(SITE, "")),)),
        ({"client_assertion": assertion(stand.base), "client_assertion_type": "x"}, ()),
    ):
        reply = await stand.post({**fields, **more}, *headers)
        assert reply.status in (400, 401) and "access_token" not in reply.json
    both = await stand.post({**fields, "client_secret": secret_of(DESK)}, client=DESK)
    assert error_of(both) == REQUEST
    assert (await stand.post({**fields, "client_secret": secret_of(DESK)})).status == 200


@pytest.mark.key("identity.oauth.apps.public_key")
async def test_an_application_with_a_key(stand: Reception) -> None:
    identity = stand.settings["identity"]
    public = KEY.as_pem(private=False).decode()
    identity["oauth"]["apps"]["tester"] = {"redirect_uris": ["https://t.example/cb"], "public_key": public}
    await stand.reload(identity=identity)
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

    async def redeem(client_assertion: str) -> Any:
        code = await stand.code("tester", redirect_uri="https://t.example/cb")
        fields: dict[str, Any] = {
            "client_assertion_type": kind,
            "client_assertion": client_assertion,
            "redirect_uri": None,
        }
        return await stand.redeem(code, "tester", client_id=None, **fields)

    once = assertion(stand.base)
    assert (await redeem(once)).status == 200
    assert error_of(await redeem(once)) == CLIENT
    assert error_of(await redeem(assertion("https://elsewhere"))) == CLIENT
    code = await stand.code("tester", redirect_uri="https://t.example/cb")
    assert error_of(await stand.redeem(code, "tester")) == CLIENT  # its name alone is not enough


async def test_each_client_has_its_own_grants(stand: Reception) -> None:
    code = await stand.code(SITE)
    fields = {"grant_type": "authorization_code", "code": code, "code_verifier": stand.verifier}
    assert error_of(await stand.post(fields, client="planner")) == UNAUTHORIZED
    assert error_of(await stand.post({"grant_type": "refresh_token"}, client="planner")) == UNAUTHORIZED
    own = {"grant_type": "client_credentials"}
    assert error_of(await stand.post({**own, "client_id": SITE})) == UNAUTHORIZED
    assert error_of(await stand.post(own, client=DESK)) == UNAUTHORIZED
    token = (await stand.tokens(PROGRAM))["access_token"]
    assert error_of(await stand.exchange(DESK, token)) == UNAUTHORIZED
    for grant in ("password", "implicit", "urn:ietf:params:oauth:grant-type:saml2-bearer"):
        assert error_of(await stand.post({"grant_type": grant, "client_id": SITE}))[1] == "unsupported_grant_type"


async def test_parameters_of_the_token_request_occur_once_and_in_the_body(stand: Reception) -> None:
    code = await stand.code(SITE)
    body = f"grant_type=authorization_code&code={code}&code_verifier={stand.verifier}&client_id=site"
    assert error_of(await stand.post(body + "&code_verifier=" + "a" * 43)) == REQUEST
    assert error_of(await stand.post(body + "&client_id=house")) == REQUEST
    assert error_of(await stand.post(body, path="/oauth/token?client_id=site")) == REQUEST
    json = ("Content-Type", "application/json")
    assert error_of(await stand.post("{}", json)) == (415, "invalid_request")
    assert error_of(await stand.post(body + "&x=" + "a" * 70_000)) == (413, "invalid_request")
    assert (await stand.post(body)).status == 200  # none of these used it up; without redirect_uri as in OAuth 2.1


async def test_the_answer_is_kept_by_nobody(stand: Reception) -> None:
    reply = await stand.redeem(await stand.code(SITE))
    assert reply.headers["cache-control"] == "no-store" and reply.headers["pragma"] == "no-cache"
    assert set(reply.json) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}


async def test_less_than_what_was_agreed_to(stand: Reception) -> None:
    tokens = (await stand.redeem(await stand.code(SITE), scope="read", resource="/mcp/coder")).json
    claims = claims_of(tokens["access_token"])
    assert (claims["scope"], claims["aud"]) == ("read", f"{stand.base}/mcp/coder")
    narrow = await stand.code(SITE, resource="/mcp/coder")
    assert error_of(await stand.redeem(narrow, resource="/mcp")) == TARGET


async def test_whoever_was_revoked_meanwhile_gets_nothing(stand: Reception) -> None:
    code = await stand.code(SITE)
    tokens = await stand.tokens(SITE)
    stand.house.recogniser.revoke(stand.idp.issuer, "alice")
    assert error_of(await stand.redeem(code)) == GRANT
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert error_of(await stand.refresh(tokens["refresh_token"])) == GRANT
    assert (await stand.visit(SITE)).headers["location"].startswith("/oauth/sign-in")


async def test_a_person_whose_provider_is_gone(stand: Reception) -> None:
    code, tokens = await stand.code(SITE), await stand.tokens(SITE)
    identity = stand.settings["identity"]
    main = identity["providers"].pop("main")
    identity["agents"] = {}
    identity["providers"]["other"] = {**main, "issuer": "https://other.example"}
    await stand.reload(identity=identity)
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert error_of(await stand.redeem(code)) == GRANT
    assert error_of(await stand.refresh(tokens["refresh_token"])) == GRANT


# Without a gateway


def codes(folder: Path, clock: Clock) -> Codes:
    def hold(kind: str, shape: Any) -> Held[Any]:
        return Held(kind, shape, SqliteHeld(open_database(folder)), Keys(folder / "keys"), clock)

    return Codes(hold, clock)


def wanted(**changes: Any) -> Code:
    who = Who("https://idp", "alice", "main", (), (), 0.0)
    good = {
        "session": Session(SITE, who, "/mcp", (), "family:x"), "redirect_uri": "https://site.example/cb",
        "challenge": s256(b"v" * 43), "secret": "s", "expires": 0.0,
    }  # fmt: skip
    return Code(**{**good, **changes})


async def test_a_page_is_for_one_person_and_one_sign_in(tmp_path: Path) -> None:
    clock = Clock()

    def hold(kind: str, shape: Any) -> Held[Any]:
        return Held(kind, shape, SqliteHeld(open_database(tmp_path)), Keys(tmp_path / "key"), clock)

    consents = Consents(hold, clock)
    target = Target(SITE, "https://site.example/cb", "x")
    request = Wanted(target, "/mcp", (), "c" * 43, frozenset())
    alice = Person("https://idp", "alice", "main", at=5.0)
    for other in (
        Person("https://idp", "bob", "main", at=5.0), Person("https://other", "alice", "main", at=5.0),
        Person("https://idp", "alice", "main", at=6.0),
    ):  # fmt: skip
        assert await consents.answered(await consents.ask(request, alice), other) is None
    name = await consents.ask(request, alice)
    assert await consents.answered(name, alice) == request and await consents.answered(name, alice) is None
    name = await consents.ask(request, alice)
    clock.now += PATIENCE + 1
    assert await consents.answered(name, alice) is None


def site() -> Application:
    return of_configuration(SITE, App(redirect_uris=("https://site.example/cb",)))


@pytest.mark.rule("AST-5", "AST-7")
async def test_a_code_lives_for_a_minute_and_for_its_key(tmp_path: Path) -> None:
    clock = Clock()
    held = codes(tmp_path, clock)
    good = {"code_verifier": "v" * 43}
    for wait, found in ((LIFETIME - 1, True), (LIFETIME + 1, False)):
        code = await held.make(wanted())
        clock.now += wait
        if found:
            assert (await held.redeem(site(), {**good, "code": code}, {})).secret == "s"
        else:
            with pytest.raises(TokenError, match="not accepted"):
                await held.redeem(site(), {**good, "code": code}, {})
    for verifier in (
        "v" * 42,
        "v" * 129,
        "v" * 42 + "+",
    ):  # which fits the challenge, but can be guessed or is no verifier
        code = await held.make(wanted(challenge=s256(verifier.encode())))
        with pytest.raises(TokenError, match="not accepted"):
            await held.redeem(site(), {"code_verifier": verifier, "code": code}, {})
    for confirmation in ({}, {"jkt": "other"}, {"x5t#S256": "k" * 43}):
        code = await held.make(wanted(jkt="k" * 43))
        with pytest.raises(TokenError):
            await held.redeem(site(), {**good, "code": code}, confirmation)
    code = await held.make(wanted(jkt="k" * 43))
    assert (await held.redeem(site(), {**good, "code": code}, {"jkt": "k" * 43})).secret == "s"


async def test_codes_are_not_on_the_disk(stand: Reception, tmp_path: Path) -> None:
    code = await stand.code(SITE)
    tokens = (await stand.redeem(await stand.code(SITE))).json
    stored = b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file())
    for secret in (code, tokens["refresh_token"], tokens["access_token"], stand.verifier):
        assert secret.encode() not in stored
    assert answer(await stand.visit(HOUSE))["code"].encode() not in stored

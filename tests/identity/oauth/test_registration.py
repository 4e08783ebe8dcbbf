"""Applications that register themselves (RFC 7591), and attacks with registrations."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callgate.identity import Held, TokenError
from callgate.identity.oauth.described import Unfit
from callgate.identity.oauth.registration import LARGEST, OF_ALL, UNUSED, USED, Registrations
from callgate.identity.secrets import Keys
from callgate.store import SqliteHeld, open_database
from tests.fuzz.raw import Reply
from tests.identity.oauth.office import basic, claims_of, error_of
from tests.identity.oauth.reception import Reception, answer, on_a_page, reception
from tests.identity.provider import Clock, ec_key
from tests.identity.signin.idp import SECRET

pytestmark = pytest.mark.anyio
LOCAL: dict[str, Any] = {"redirect_uri": "http://127.0.0.1:7777/cb"}
PUBLIC = {
    "client_name": "Some CLI", "redirect_uris": ["http://127.0.0.1/cb"], "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"],
}  # fmt: skip


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path, {"registration": True}) as stand:
        yield stand


async def register(stand: Reception, said: Any = None, kind: str = "application/json", **changes: Any) -> Reply:
    good = {name: value for name, value in {**PUBLIC, **changes}.items() if value is not None}
    body = said if isinstance(said, str) else json.dumps(good if said is None else said)
    return await stand.post(body, ("Content-Type", kind), path="/oauth/register")


@pytest.mark.key("identity.oauth.registration")
async def test_from_a_registration_to_a_call(stand: Reception) -> None:
    document = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert document["registration_endpoint"] == f"{stand.base}/oauth/register"
    reply = await register(stand)
    assert reply.status == 201 and reply.headers["cache-control"] == "no-store"
    told = reply.json
    assert told["redirect_uris"] == ["http://127.0.0.1/cb"] and "client_secret" not in told
    assert told["client_name"] == "Some CLI" and told["token_endpoint_auth_method"] == "none"
    id = told["client_id"]
    shown = await stand.visit(id, **LOCAL)
    assert b"registered itself: nobody has checked who it is" in shown.body and b"Some CLI" in shown.body
    code = answer(await stand.decide(shown))["code"]
    tokens = (await stand.redeem(code, id, **LOCAL)).json
    assert claims_of(tokens["access_token"])["client_id"] == id
    assert (await stand.call_with(tokens["access_token"])).status == 200
    assert (await stand.visit(id, **LOCAL)).status == 200  # asked every time
    record = next(each for each in await stand.records() if each["method"] == "oauth/register")
    assert record["args"]["client"] == id
    identity = stand.settings["identity"]
    identity["oauth"]["registration"] = False
    await stand.reload(identity=identity)
    assert (await register(stand)).status == 404
    on_a_page(await stand.visit(id, **LOCAL))
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert error_of(await stand.refresh(tokens["refresh_token"], id)) == (401, "invalid_client")


async def test_it_is_off_until_somebody_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        assert (await register(stand)).status == 404


async def test_a_registration_that_is_taken_back(stand: Reception) -> None:
    id = (await register(stand)).json["client_id"]
    tokens = await stand.tokens(id, **LOCAL)
    own = stand.house.recogniser.own
    assert own is not None and own.apps.registrations is not None
    await own.apps.registrations.drop(id)
    own.revocations.add(f"sub:client:{id}", time.time() + 3600)
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert error_of(await stand.refresh(tokens["refresh_token"], id)) == (401, "invalid_client")
    on_a_page(await stand.visit(id, **LOCAL))


async def test_a_token_of_an_application_that_is_forgotten(stand: Reception) -> None:
    """It was never called with, so nobody remembers that it held."""
    id = (await register(stand)).json["client_id"]
    token = (await stand.tokens(id, **LOCAL))["access_token"]
    own = stand.house.recogniser.own
    assert own is not None and own.apps.registrations is not None
    await own.apps.registrations.drop(id)
    assert (await stand.call_with(token)).status == 401


async def test_an_application_with_a_secret_has_one_way_to_send_it(stand: Reception) -> None:
    for method in ("client_secret_basic", "client_secret_post", None):
        told = (await register(stand, token_endpoint_auth_method=method)).json
        id, secret = told["client_id"], told["client_secret"]
        assert told["token_endpoint_auth_method"] == (method or "client_secret_basic") and len(secret) > 40
        code = await stand.code(id, **LOCAL)
        fields = {"grant_type": "authorization_code", "code": code, "code_verifier": stand.verifier}
        header = (("Authorization", basic(id, secret)),)
        posted = {"client_id": id, "client_secret": secret}
        wrong = ({**fields, **posted}, ()) if method != "client_secret_post" else (fields, header)
        right = (fields, header) if method != "client_secret_post" else ({**fields, **posted}, ())
        for form, headers in (wrong, ({**fields, "client_id": id}, ()), (fields, (("Authorization", basic(id, "x")),))):
            assert error_of(await stand.post(form, *headers)) == (401, "invalid_client")
        assert (await stand.post(right[0], *right[1])).status == 200


URIS = {
    "none": [],
    "no list": "https://app.example/cb",
    "a script": ["javascript:alert(1)"],
    "data": ["data:text/html,x"],
    "a file": ["file:///etc/passwd"],
    "no TLS": ["http://app.example/cb"],
    "a fragment": ["https://app.example/cb#x"],
    "user information": ["https://user@app.example/cb"],
    "dot segments": ["https://app.example/a/../cb"],
    "a wildcard": ["https://*.example/cb"],
    "a name for a scheme": ["myapp:/cb"],
    "a scheme of the system": ["ms-msdt:/id"],
    "dots alone": ["..:/cb"],
    "a line break": ["https://app.example/cb\r\nX: y"],
    "a good one and a bad one": ["https://app.example/cb", "http://evil.example/cb"],
    "too many": [f"https://app.example/{number}" for number in range(33)],
    "numbers": [1, 2],
    "very long": ["https://app.example/" + "a" * 3000],
}


@pytest.mark.rule("AS-1")
@pytest.mark.parametrize("uris", URIS.values(), ids=URIS)
async def test_redirect_uris_that_are_refused(stand: Reception, uris: Any) -> None:
    assert error_of(await register(stand, redirect_uris=uris)) == (400, "invalid_redirect_uri")


OTHERS: dict[str, dict[str, Any]] = {
    "an unknown method": {"token_endpoint_auth_method": "tls_client_auth"},
    "a method that is no text": {"token_endpoint_auth_method": ["none"]},
    "grants of agents": {"grant_types": ["client_credentials"]},
    "an implicit grant": {"response_types": ["token"]},
    "a key without one": {"token_endpoint_auth_method": "private_key_jwt"},
    "keys in the private network": {
        "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://169.254.169.254/",
    },
    "a private key": {
        "token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [ec_key("x").as_dict(private=True)]},
    },
    "a name that is no text": {"client_name": {"de": "x"}},
    "a scope that is no text": {"scope": ["read"]},
}  # fmt: skip


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
async def test_registrations_that_are_refused(stand: Reception, changes: dict[str, Any]) -> None:
    assert error_of(await register(stand, **changes)) == (400, "invalid_client_metadata")


async def test_bodies_that_are_refused(stand: Reception) -> None:
    for said in ("", "[]", "null", "{", '{"redirect_uris": [], "redirect_uris": []}', "[" * 5000, '"x"', "\x00"):
        assert error_of(await register(stand, said))[0] == 400
    assert error_of(await register(stand, kind="text/plain"))[0] == 415
    assert error_of(await register(stand, kind="application/x-www-form-urlencoded"))[0] == 415
    assert error_of(await register(stand, padding="x" * LARGEST))[0] == 413
    assert (await stand.get("/oauth/register")).status == 405


async def test_nobody_registers_what_is_not_theirs(stand: Reception) -> None:
    told = (
        await register(stand, client_id="site", trusted=True, audiences=["/"], kind_="configured", scopes=["x"])
    ).json
    assert told["client_id"].startswith("app-") and "trusted" not in told
    shown = await stand.visit(told["client_id"], **LOCAL)
    assert shown.status == 200  # the consent page, trusted or not
    many = (await register(stand, grant_types=["authorization_code", "client_credentials", "refresh_token"])).json
    assert many["grant_types"] == ["authorization_code", "refresh_token"]
    form = {"grant_type": "client_credentials", "client_id": told["client_id"]}
    assert error_of(await stand.post(form)) == (400, "unauthorized_client")


async def test_web_and_native_applications(stand: Reception) -> None:
    web, private = "https://app.example/cb", "com.example.app:/cb"
    for kind, uris, status in (
        ("web", [web], 201), ("web", ["http://127.0.0.1/cb"], 400), ("web", [private], 400),
        ("native", [web, "http://localhost/cb", private], 201), (None, ["http://[::1]/cb", private], 201),
    ):  # fmt: skip
        assert (await register(stand, application_type=kind, redirect_uris=uris)).status == status, (kind, uris)
    id = (await register(stand, redirect_uris=[private])).json["client_id"]
    shown = await stand.visit(id, redirect_uri=private)
    assert b"the program on this machine for com.example.app:" in shown.body
    assert (await stand.decide(shown)).headers["location"].startswith(private + "?code=")
    on_a_page(await stand.visit(id, redirect_uri="com.example.app:/cb/more"))


async def test_the_scope_of_a_registration_is_not_the_last_word(stand: Reception) -> None:
    """SDKs register with the scope of the first challenge, and ask for more when a call needs more."""
    registered = (await register(stand, scope="read")).json
    id = registered["client_id"]
    assert "scope" not in registered
    assert (await stand.tokens(id, scope="read", **LOCAL))["scope"] == "read"
    assert b"Let " in (await stand.visit(id, scope="read write", **LOCAL)).body
    reply = await stand.visit(id, scope="read everything", **LOCAL)
    assert answer(reply)["error"] == "invalid_scope"


async def test_one_address_registers_only_so_many(stand: Reception) -> None:
    found = [(await register(stand)).status for _ in range(22)]
    assert found == [201] * 20 + [429] * 2


# Without a gateway


def registrations(folder: Path, clock: Clock) -> Registrations:
    def hold(kind: str, shape: Any) -> Held[Any]:
        return Held(kind, shape, SqliteHeld(open_database(folder)), Keys(folder / "key"), clock)

    return Registrations(hold, clock)


async def test_a_registration_ends_unless_somebody_signs_in_with_it(tmp_path: Path) -> None:
    clock = Clock()
    held = registrations(tmp_path, clock)
    used, _ = await held.register(PUBLIC, "a")
    unused, secret = await held.register(PUBLIC, "a")
    assert secret == ""
    await held.used(used)
    clock.now += UNUSED + 1
    assert await held.find(used.name) is not None and await held.find(unused.name) is None
    clock.now += USED
    assert await held.find(used.name) is None


async def test_they_are_bounded_and_make_room_again(tmp_path: Path) -> None:
    clock = Clock()
    held = registrations(tmp_path, clock)
    for number in range(21):
        if number < 20:
            await held.register(PUBLIC, "a")
    with pytest.raises(TokenError, match="Too many"):
        await held.register(PUBLIC, "a")
    await held.register(PUBLIC, "b")
    clock.now += UNUSED + 1
    await held.register(PUBLIC, "a")
    assert OF_ALL <= 1000
    with pytest.raises(Unfit):
        await held.register({**PUBLIC, "redirect_uris": ["x"]}, "a")


@pytest.mark.key("allowed_origins")
async def test_clients_in_browsers_read_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    page = ("Origin", "https://inspector.example")
    ask = ("Access-Control-Request-Method", "POST")
    async with reception(tmp_path, {"registration": True}, allowed_origins=[page[1]]) as stand:
        for path in ("/oauth/register", "/oauth/token", "/.well-known/oauth-authorization-server"):
            before = await stand.get(path, page, ask, method="OPTIONS")
            assert before.status == 204 and before.headers["access-control-allow-origin"] == page[1]
            assert "dpop" in before.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in before.headers
            assert (await stand.get(path, ("Origin", "https://evil.example"), ask, method="OPTIONS")).status == 403
        body = json.dumps(PUBLIC)
        reply = await stand.post(body, ("Content-Type", "application/json"), page, path="/oauth/register")
        assert reply.status == 201 and reply.headers["access-control-allow-origin"] == page[1]
        refused = await stand.post({"grant_type": "x", "client_id": "site"}, page)
        assert refused.status == 400 and refused.headers["access-control-allow-origin"] == page[1]
        # Pages with a sign-in behind them are for nobody's scripts.
        assert "access-control-allow-origin" not in (await stand.get("/oauth/authorize", page)).headers

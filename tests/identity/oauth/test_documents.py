"""Applications whose client id is the URL of a document about them (CIMD), and attacks with such documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.egress import NotPublic
from callgate.errors import UpstreamError
from callgate.identity import Brought, Surroundings
from callgate.identity.oauth.described import Unfit
from callgate.identity.oauth.documents import LARGEST, Documents, form_fault, lifetime, read_document
from callgate.identity.oauth.keysets import KeySets
from tests.identity.oauth.office import claims_of, error_of
from tests.identity.oauth.reception import Publisher, Reception, answer, on_a_page, reception
from tests.identity.provider import Clock, ec_key, sign
from tests.identity.signin.idp import SECRET

pytestmark = pytest.mark.anyio
URL = "https://app.example/client.json"
CB = "https://app.example/cb"
GOOD: dict[str, Any] = {"client_id": URL, "client_name": "Example", "redirect_uris": [CB]}


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with Publisher() as publisher:
        yield publisher


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path, egress={"allow_private": ["127.0.0.1/32"]}) as stand:
        yield stand


LOCAL: dict[str, Any] = {"redirect_uri": "http://127.0.0.1:7777/cb"}


@pytest.mark.rule("AS-3", "AS-4", "AS-5")
@pytest.mark.key("egress.allow_private")
async def test_an_application_that_nobody_registered(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish(client_name="Some IDE")
    shown = await stand.visit(url, **LOCAL)
    page = shown.body.decode()
    assert "Let Some IDE in?" in page and "127.0.0.1" in page
    assert "Your organisation has not checked this application" in page and "any program there" in page
    code = answer(await stand.decide(shown))["code"]
    tokens = (await stand.redeem(code, url, redirect_uri=LOCAL["redirect_uri"])).json
    claims = claims_of(tokens["access_token"])
    assert claims["client_id"] == url and claims["delegation_chain"][0]["sub"] == f"client:{url}"
    assert (await stand.call_with(tokens["access_token"])).status == 200
    assert (await stand.refresh(tokens["refresh_token"], url)).status == 200
    assert publisher.paths.count("/client.json") == 1  # remembered


async def test_a_document_says_which_grants_it_wants(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish(grant_types=None)
    assert "refresh_token" not in await stand.tokens(url, **LOCAL)


@pytest.mark.rule("AS-5")
async def test_an_answer_that_goes_to_another_host_is_said(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish(redirect_uris=["https://evil.example/cb"], client_name="Your Bank")
    page = (await stand.visit(url, redirect_uri="https://evil.example/cb")).body.decode()
    assert "The answer does not go to 127.0.0.1, but to evil.example" in page
    assert "any program there" not in page


async def test_the_name_is_text(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish(client_name="<script>alert(1)</script>\u202egpj.exe\u200b  \n x" + "y" * 500)
    page = (await stand.visit(url, **LOCAL)).body.decode()
    assert "<script" not in page and "\u202e" not in page and "\u200b" not in page and "y" * 130 not in page


REFUSED: dict[str, Any] = {
    "another client id": {"client_id": "https://other.example/client.json"},
    "no client id": {"client_id": None},
    "no name": {"client_name": None},
    "an empty name": {"client_name": "  "},
    "a name that is no text": {"client_name": ["x"]},
    "no redirect URIs": {"redirect_uris": None},
    "an empty list": {"redirect_uris": []},
    "one redirect URI as text": {"redirect_uris": "http://127.0.0.1/cb"},
    "a script": {"redirect_uris": ["http://127.0.0.1/cb", "javascript:alert(1)"]},
    "a private scheme": {"redirect_uris": ["http://127.0.0.1/cb", "com.example.app:/cb"]},
    "no TLS": {"redirect_uris": ["http://127.0.0.1/cb", "http://app.example/cb"]},
    "a fragment": {"redirect_uris": ["http://127.0.0.1/cb", "https://app.example/cb#x"]},
    "user information": {"redirect_uris": ["http://127.0.0.1/cb", "https://a@app.example/cb"]},
    "too many": {"redirect_uris": [f"https://app.example/{number}" for number in range(40)] + ["http://127.0.0.1/cb"]},
    "a secret": {"client_secret": "s3cret"},
    "a secret that expires": {"client_secret_expires_at": 0},
    "a secret as its method": {"token_endpoint_auth_method": "client_secret_basic"},
    "an unknown method": {"token_endpoint_auth_method": "tls_client_auth"},
    "a key without one": {"token_endpoint_auth_method": "private_key_jwt"},
    "a private key": {
        "token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [ec_key("x").as_dict(private=True)]},
    },
    "a shared key": {
        "token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]},
    },
    "keys without TLS": {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://127.0.0.1/jwks"},
    "keys twice": {
        "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://a.example/k",
        "jwks": {"keys": [ec_key("x").as_dict(private=False)]},
    },
    "no grant for applications": {"grant_types": ["client_credentials"]},
    "an implicit grant": {"response_types": ["token"]},
    "a scope that is no text": {"scope": ["read"]},
    "too large": {"comment": "x" * LARGEST},
}  # fmt: skip


@pytest.mark.rule("AS-4", "AST-8")
@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
async def test_a_document_that_is_refused(stand: Reception, publisher: Publisher, changes: dict[str, Any]) -> None:
    url = publisher.publish(**changes)
    on_a_page(await stand.visit(url, **LOCAL))
    assert publisher.paths == ["/client.json"]
    on_a_page(await stand.visit(url, **LOCAL))
    assert publisher.paths == ["/client.json"]  # not asked for again at once


@pytest.mark.rule("AS-4")
async def test_only_its_redirect_uris(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish(redirect_uris=["https://app.example/cb"])
    for uri in ("https://app.example/cb2", "http://127.0.0.1:7777/cb", "https://site.example/cb"):
        on_a_page(await stand.visit(url, redirect_uri=uri))


@pytest.mark.rule("AST-8")
async def test_answers_that_are_no_documents(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish()
    for status in (404, 500, 204, 301):
        publisher.status["/client.json"] = status
        on_a_page(await stand.visit(f"{url}", **LOCAL))
        stand.house.recogniser.own.apps.documents._known.clear()  # type: ignore[union-attr]
    publisher.status.clear()
    publisher.documents["/other.json"] = ["no", "object"]
    on_a_page(await stand.visit(publisher.issuer + "/other.json", **LOCAL))
    assert (await stand.visit(url, **LOCAL)).status == 200


@pytest.mark.rule("AST-8")
async def test_a_document_is_not_followed_elsewhere(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish()
    inside = publisher.publish("/inside.json", client_id=url)
    pages = publisher.pages

    def redirecting() -> dict[str, Any]:
        return {**pages(), "/client.json": lambda query, headers, body: (302, {}, inside)}

    publisher.pages = redirecting  # type: ignore[method-assign]
    on_a_page(await stand.visit(url, **LOCAL))
    assert "/inside.json" not in publisher.paths


@pytest.mark.rule("AST-8")
async def test_a_private_address_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publisher: Publisher
) -> None:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    url = publisher.publish()
    async with reception(tmp_path) as stand:
        on_a_page(await stand.visit(url, **LOCAL))
        assert publisher.paths == []
        for host in (
            "127.0.0.1",
            "localhost",
            "[::1]",
            "10.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
            "[::ffff:7f00:1]",
        ):
            on_a_page(await stand.visit(f"https://{host}/client.json", redirect_uri="https://a.example/cb"))


@pytest.mark.key("identity.oauth.client_documents")
async def test_only_hosts_that_are_trusted(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish()
    tokens = await stand.tokens(url, **LOCAL)
    identity = stand.settings["identity"]
    for hosts, status in ((["127.0.0.1"], 200), (["*.example.org", "example.org"], 400), ([], 400)):
        identity["oauth"]["client_documents"] = hosts
        await stand.reload(identity=identity)
        assert (await stand.visit(url, **LOCAL)).status == status
        # And what it was given before ends with the trust.
        assert (await stand.call_with(tokens["access_token"])).status == (200 if status == 200 else 401)
    assert error_of(await stand.refresh(tokens["refresh_token"], url)) == (401, "invalid_client")


async def test_a_document_with_a_key(stand: Reception, publisher: Publisher) -> None:
    key = ec_key("its key")
    url = publisher.publish(token_endpoint_auth_method="private_key_jwt", jwks={"keys": [key.as_dict(private=False)]})
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

    async def redeem(signer: Any, **changes: Any) -> Any:
        code = await stand.code(url, **LOCAL)
        claims = publisher.claims(
            iss=url, sub=url, aud=stand.base, exp=int(publisher.clock()) + 60, jti=code, **changes
        )
        proof = sign(signer, {"alg": "ES256", "kid": key.kid}, claims)
        fields = {"client_assertion_type": kind, "client_assertion": proof, **LOCAL}
        return await stand.redeem(code, url, **fields)

    assert (await redeem(key)).status == 200
    assert error_of(await redeem(ec_key("another"))) == (401, "invalid_client")
    code = await stand.code(url, **LOCAL)
    assert error_of(await stand.redeem(code, url, **LOCAL)) == (401, "invalid_client")


async def test_the_document_of_an_agent_s_name_is_no_agent(stand: Reception, publisher: Publisher) -> None:
    url = publisher.publish()
    await stand.visit(url, **LOCAL)
    form = {"grant_type": "client_credentials", "client_id": url}
    assert error_of(await stand.post(form)) == (400, "unauthorized_client")


# Without a gateway


NO_ID = {
    "no path": "https://app.example",
    "the root": "https://app.example/",
    "a fragment": "https://app.example/client.json#x",
    "a query": "https://app.example/client.json?x=1",
    "user information": "https://user:pass@app.example/client.json",
    "dot segments": "https://app.example/a/../client.json",
    "one dot": "https://app.example/./client.json",
    "encoded dots": "https://app.example/%2e%2e/client.json",
    "half-encoded dots": "https://app.example/.%2E/client.json",
    "no TLS": "http://app.example/client.json",
    "another scheme": "ftp://app.example/client.json",
    "upper case": "HTTPS://app.example/client.json",
    "a space": "https://app.example/client .json",
    "a line break": "https://app.example/client.json\r\nX: y",
    "a backslash": "https://app.example\\client.json",
    "not ASCII": "https://\u0430pp.example/client.json",
    "very long": "https://app.example/" + "a" * 3000,
    "loopback without TLS": "http://127.0.0.1/client.json",
}


async def never(url: str) -> Any:
    raise AssertionError("not this way")


def documents(answers: Any, clock: Clock, hosts: tuple[str, ...] = ("*",), base: str = "https://here") -> Documents:
    async def get(url: str) -> Brought:
        found = await answers(url) if asyncio.iscoroutinefunction(answers) else answers(url)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Brought)
        return found

    def hold(kind: str, shape: Any) -> Any:
        raise AssertionError("nothing is held")

    return Documents(hosts, Surroundings(lambda: base, Path(), never, never, hold, never, get), clock)


def brought(headers: dict[bytes, bytes] | None = None, **changes: Any) -> Brought:
    return Brought(json.dumps({**GOOD, **changes}).encode(), headers or {})


@pytest.mark.rule("AST-8")
@pytest.mark.parametrize("url", NO_ID.values(), ids=NO_ID)
async def test_a_url_that_is_no_client_id_is_never_asked(url: str) -> None:
    asked: list[str] = []
    held = documents(asked.append, Clock())
    assert await held.find(url) is None and not asked and not held.accepts(url)
    assert form_fault(url) or not url.startswith("https://")


@pytest.mark.rule("AST-8")
def test_what_is_no_document() -> None:
    html = {b"content-type": b"text/html; charset=utf-8"}
    duplicate = json.dumps(GOOD).replace('"client_name"', '"client_id": "x", "client_name"').encode()
    for each in (
        brought(html), Brought(b"<html>"), Brought(b""), Brought(b"[]"), Brought(b'"x"'), Brought(b"[" * 100_000),
        Brought(duplicate), Brought(b"\xff"), Brought(json.dumps(GOOD).encode() + b" " * LARGEST),
        brought(client_id=URL + "/"), brought(client_id=URL.upper()), brought(client_id=[URL]),
    ):  # fmt: skip
        with pytest.raises(Unfit):
            read_document(URL, each)
    for kind in (b"application/json", b"application/json; charset=utf-8", b""):
        assert read_document(URL, brought({b"content-type": kind})).redirect_uris == (CB,)


@pytest.mark.rule("AS-3")
def test_a_document_is_kept_as_its_headers_say() -> None:
    for control, seconds in (
        (b"", 300), (b"max-age=600", 600), (b"public, max-age=120", 120), (b"max-age=1", 60), (b"max-age=0", 60),
        (b"no-store", 60), (b"no-cache, max-age=900", 60), (b"max-age=99999999", 86400), (b"max-age=x", 300),
        (b"s-maxage=600", 300), (b"MAX-AGE=600", 600),
    ):  # fmt: skip
        assert lifetime(Brought(b"", {b"cache-control": control})) == seconds, control
    assert lifetime(Brought(b"", {b"cache-control": b"max-age=600", b"age": b"500"})) == 100


@pytest.mark.rule("AS-3")
async def test_a_document_is_fetched_again_when_its_time_is_over() -> None:
    clock, asked = Clock(), []

    def answers(url: str) -> Brought:
        asked.append(url)
        return brought({b"cache-control": b"max-age=100"}, client_name=f"Number {len(asked)}")

    held = documents(answers, clock)
    for wait, title in ((0, "Number 1"), (99, "Number 1"), (2, "Number 2")):
        clock.now += wait
        found = await held.find(URL)
        assert found is not None and found.title == title
    clock.now -= 100_000  # the clock was set back
    found = await held.find(URL)
    assert found is not None and found.title == "Number 3"


async def test_a_refusal_is_remembered_for_a_moment_and_ends() -> None:
    clock, asked = Clock(), []

    def answers(url: str) -> Any:
        asked.append(url)
        return UpstreamError("away") if len(asked) == 1 else brought()

    held = documents(answers, clock)
    assert await held.find(URL) is None and await held.find(URL) is None and len(asked) == 1
    clock.now += 16
    assert await held.find(URL) is not None
    assert await documents(lambda url: NotPublic("no"), clock).find(URL) is None


async def test_fetches_are_shared_and_bounded() -> None:
    release, asked = asyncio.Event(), []

    async def get(url: str) -> Brought:
        asked.append(url)
        await release.wait()
        return brought(client_id=url)

    held = documents(get, Clock())
    same = [asyncio.create_task(held.find(URL)) for _ in range(20)]
    others = [asyncio.create_task(held.find(f"https://app.example/{number}")) for number in range(20)]
    await asyncio.sleep(0.01)
    same[0].cancel()  # one that gives up does not cancel it for the others
    release.set()
    found = await asyncio.gather(*same[1:], *others)
    assert len(asked) == 8 and sum(each is not None for each in found) == 19 + 7
    await held.aclose()


async def test_hosts_are_globs() -> None:
    held = documents(lambda url: brought(client_id=url), Clock(), ("*.example", "only.test"))
    for url, accepted in (
        ("https://app.example/c", True), ("https://APP.example/c", True), ("https://only.test/c", True),
        ("https://example/c", False), ("https://app.example.evil.test/c", False), ("https://x.only.test/c", False),
        ("https://evil.test/app.example", False), ("https://evil.test:443/c", False),
    ):  # fmt: skip
        assert (await held.find(url) is not None) == accepted == held.accepts(url), url


async def test_keys_of_a_stranger_are_fetched_where_strangers_urls_lead(tmp_path: Path) -> None:
    """An application's `jwks_uri`: behind the guard, remembered, and asked again for a key that is not known."""
    clock, asked, published = Clock(), [], [ec_key("one")]

    async def fetch_public(url: str) -> bytes:
        asked.append(url)
        if url.endswith("away"):
            raise NotPublic("no")
        return json.dumps({"keys": [{**each.as_dict(private=False), "kid": each.kid} for each in published]}).encode()

    def hold(kind: str, shape: Any) -> Any:
        raise AssertionError("nothing is held")

    around = Surroundings(lambda: "https://here", tmp_path, never, fetch_public, hold, never)
    said = {**GOOD, "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://app.example/keys"}
    app = read_document(URL, Brought(json.dumps(said).encode()))
    sets = KeySets(around, clock)
    for _ in range(3):
        assert len(await sets.find(app, "one", "ES256")) == 1
    assert asked == ["https://app.example/keys"]
    published.append(ec_key("two"))
    assert await sets.find(app, "two", "ES256") == []  # not so soon
    clock.now += 31
    assert len(await sets.find(app, "two", "ES256")) == 1 and len(asked) == 2
    assert await sets.find(app, None, "ES256") == []  # it could be either
    assert await sets.find(app, "one", "RS256") == []
    away = msgspec.structs.replace(app, jwks_uri="https://app.example/away")
    assert await sets.find(away, "one", "ES256") == []

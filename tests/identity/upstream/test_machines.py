"""callgate's own tokens, and those for which an identity provider vouches, of issuers found through the server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.config import Provider, UpstreamAuth
from callgate.egress import Guard, HttpPool, Response
from callgate.errors import ConfigError, ConsentNeeded, Denied, UpstreamError
from callgate.identity.upstream.credential import Credential, Place
from callgate.identity.upstream.grants import EXCHANGE, ID_JAG, ID_TOKEN, JWT_BEARER
from callgate.identity.upstream.whose import user_of
from callgate.types import Actor, Principal
from callgate.upstream.endpoint import Endpoint, Shown
from tests.identity.provider import Clock
from tests.servers.authority import OIDC, Authority, Form

pytestmark = pytest.mark.anyio
IDP = "https://idp.example"


def person(name: str = "alice", *agents: str, **more: Any) -> Principal:
    chain = tuple(Actor(f"agent:{agent}", "us") for agent in agents)
    made = {"subject": name, "key": f"{name}{agents}", "issuer": IDP, "via": "jwt", "chain": chain, **more}
    return Principal(**made)


class House:
    """What a credential asks of its house."""

    issuer = "https://us"
    guard = Guard()

    def __init__(self, provider: Provider | None) -> None:
        self.idp = provider
        self.id_tokens: dict[str, str] = {}

    async def sign(self, claims: Mapping[str, Any]) -> str:
        return "h." + base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=") + ".s"

    def presented(self, who: Principal) -> str | None:
        return f"the-token-of-{who.subject}" if who.proof else None

    def provider(self, name: str) -> Provider:
        assert self.idp is not None and name == "corp"
        return self.idp

    async def id_token(self, user: str, provider: str) -> str | None:
        return self.id_tokens.get(user) if provider == "corp" else None


class Bench:
    """One server, its issuer, an identity provider, and a folder with files."""

    def __init__(self, folder: Path, authority: Authority, provider: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.provider = provider
        self.clock = Clock()
        self.house = House(Provider(issuer=provider.issuer, client_id="us-at-idp", client_secret="env:IDP"))
        self.pool = HttpPool()
        self.made: list[Credential] = []

    def credential(self, type: Any, **auth: Any) -> Credential:
        async def resolve(reference: str) -> str:
            kind, _, name = reference.partition(":")
            try:
                return (
                    (self.folder / name).read_text()
                    if kind == "file"
                    else {"IDP": "idp-secret", "AS": "as-secret"}[name]
                )
            except OSError:
                raise ConfigError(f"the file {name} cannot be read") from None

        place = Place(self.authority.url, UpstreamAuth(type=type, **auth), resolve)
        self.made.append(Credential(place, self.house, self.clock))
        return self.made[-1]

    async def call(self, credential: Credential, who: Principal | None = None) -> Response:
        endpoint = Endpoint(self.pool.origin(self.authority.url), {}, shown=Shown(credential, who))
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{}}}'
        return await endpoint.post(b"", body, float("inf"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Authority() as authority, Authority(meta_at=OIDC) as provider:
        made = Bench(tmp_path, authority, provider)
        yield made
        for each in made.made:
            await each.aclose()
        await made.pool.aclose()


def nothing(form: Form) -> dict[str, Any]:
    return {"client_id": form.get("client_id", "")}


def refuse(code: str) -> Any:
    def refused(form: Form) -> dict[str, Any]:
        raise ValueError(code)

    return refused


# client_credentials


@pytest.mark.rule("OC-1", "OC-4")
@pytest.mark.key("servers.auth.token_endpoint", "servers.auth.client_auth")
async def test_the_issuer_of_a_server_is_found(bench: Bench) -> None:
    bench.authority.grants["client_credentials"] = nothing
    bench.authority.challenge = 'Bearer scope="read", resource_metadata="{prm}"'
    credential = bench.credential(
        "client_credentials", client_id="us", client_secret="env:AS", issuer=bench.authority.issuer
    )
    for who in (None, person("alice"), person("bob")):
        assert (await bench.call(credential, who)).status == 200
    (form,) = bench.authority.forms
    assert (form["client_id"], form["client_secret"], form["basic"]) == ("us", "as-secret", "yes")
    assert (form["resource"], form["scope"]) == (bench.authority.url, "read")


async def test_private_key_jwt_is_for_the_issuer_that_was_found(bench: Bench) -> None:
    bench.authority.grants["client_credentials"] = nothing
    assert (await bench.call(bench.credential("client_credentials", client_id="us"))).status == 200
    part = bench.authority.forms[-1]["client_assertion"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=="))
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("us", "us", bench.authority.issuer)


@pytest.mark.rule("OC-8")
async def test_an_issuer_that_a_server_names_instead_gets_no_secret(bench: Bench) -> None:
    bench.authority.prm = {"authorization_servers": [bench.provider.issuer]}
    credential = bench.credential(
        "client_credentials", client_id="us", client_secret="env:AS", issuer=bench.authority.issuer
    )
    with pytest.raises(UpstreamError, match="another issuer"):
        await bench.call(credential)
    assert not bench.provider.forms and not bench.authority.forms


@pytest.mark.key("servers.auth.dpop")
async def test_machines_can_bind_their_tokens_too(bench: Bench) -> None:
    bench.authority.grants["client_credentials"] = nothing
    bench.authority.as_nonce, bench.authority.rs_nonce = "a", "r"
    credential = bench.credential("client_credentials", client_id="us", dpop=True)
    for _ in range(3):
        assert (await bench.call(credential)).status == 200
    assert len(bench.authority.forms) == 2 and len({about["jkt"] for about in bench.authority.tokens.values()}) == 1
    assert len(bench.authority.shown) == 4


# workload


@pytest.mark.key("servers.auth.assertion_file")
async def test_a_workloads_token_is_read_anew_and_shown_to_the_issuer_only(bench: Bench) -> None:
    bench.authority.grants[JWT_BEARER] = lambda form: {"answer": {"expires_in": 100}}
    (bench.folder / "token").write_text("one.two.three\n")
    credential = bench.credential("workload", assertion_file="token", scope=("a",))
    assert (await bench.call(credential, person())).status == 200
    (bench.folder / "token").write_text("four.five.six")
    bench.clock.now += 100
    assert (await bench.call(credential, person("bob"))).status == 200
    assert [form["assertion"] for form in bench.authority.forms] == ["one.two.three", "four.five.six"]
    form = bench.authority.forms[-1]
    assert (form["grant_type"], form["resource"], form["scope"]) == (JWT_BEARER, bench.authority.url, "a")
    assert "client_id" not in form and "client_assertion" not in form
    assert not any("four.five.six" in str(request) for request in bench.authority.mcp.requests)


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_scope", "unauthorized_client", "server_error"])
async def test_a_refused_workload_tries_nothing_else_and_not_again(bench: Bench, code: str) -> None:
    bench.authority.grants[JWT_BEARER] = refuse(code)
    (bench.folder / "token").write_text("one.two.three")
    credential = bench.credential("workload", assertion_file="token")
    for _ in range(3):
        with pytest.raises(UpstreamError, match=code):
            await bench.call(credential)
        bench.clock.now += 2
    assert [form["grant_type"] for form in bench.authority.forms] == [JWT_BEARER]
    (bench.folder / "token").write_text("another.one.now")
    bench.authority.grants[JWT_BEARER] = nothing
    assert (await bench.call(credential)).status == 200


async def test_a_workload_without_its_file_says_which(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="token"):
        await bench.call(bench.credential("workload", assertion_file="token"))


# enterprise


@pytest.fixture
def vouching(bench: Bench) -> Bench:
    """The provider knows alice and bob; its assertions are `jag-N`."""
    count = iter(range(100))

    def exchange(form: Form) -> dict[str, Any]:
        if form["subject_token"] not in ("id-of-alice", "id-of-bob", "the-token-of-alice"):
            raise ValueError("invalid_grant")
        exp = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + 300}).encode()).decode().rstrip("=")
        jag = f"jag-{next(count)}.{exp}.s"
        return {"answer": {"access_token": jag, "token_type": "N_A", "issued_token_type": ID_JAG, "expires_in": 300}}

    bench.provider.grants[EXCHANGE] = exchange
    bench.authority.grants[JWT_BEARER] = lambda form: {"who": form["assertion"]}
    bench.house.id_tokens = {user_of(person(name)): f"id-of-{name}" for name in ("alice", "bob")}
    return bench


def enterprise(bench: Bench, **more: Any) -> Credential:
    more = {"client_secret": "env:AS", "issuer": bench.authority.issuer, **more}
    return bench.credential("enterprise", provider="corp", client_id="us-at-as", **more)


@pytest.mark.key("servers.auth.provider")
async def test_the_provider_vouches_and_nobody_is_asked(vouching: Bench) -> None:
    credential = enterprise(vouching)
    for name in ("alice", "bob", "alice"):
        assert (await vouching.call(credential, person(name))).status == 200
    first, second = vouching.provider.forms
    assert (first["subject_token"], second["subject_token"]) == ("id-of-alice", "id-of-bob")
    assert (first["subject_token_type"], first["requested_token_type"]) == (ID_TOKEN, ID_JAG)
    assert (first["audience"], first["resource"]) == (vouching.authority.issuer, vouching.authority.url)
    assert (first["client_id"], first["client_secret"]) == ("us-at-idp", "idp-secret")
    leg = vouching.authority.forms[0]
    assert (leg["grant_type"], leg["client_id"], leg["client_secret"]) == (JWT_BEARER, "us-at-as", "as-secret")
    assert leg["assertion"].startswith("jag-0.") and leg["resource"] == vouching.authority.url
    assert len(vouching.authority.forms) == 2
    for request in (*vouching.authority.mcp.requests, *vouching.authority.idp.requests):
        assert "id-of-" not in str(request)


async def test_assertions_are_kept_because_providers_count_them(vouching: Bench) -> None:
    vouching.authority.life = 100
    credential = enterprise(vouching)
    for _ in range(2):
        assert (await vouching.call(credential, person())).status == 200
        vouching.clock.now += 100
    assert (len(vouching.provider.forms), len(vouching.authority.forms)) == (1, 2)
    vouching.clock.now += 100
    assert (await vouching.call(credential, person())).status == 200
    assert len(vouching.provider.forms) == 2


async def test_an_issuer_that_takes_an_assertion_once_gets_another(vouching: Bench) -> None:
    vouching.authority.life = 100
    seen: set[str] = set()

    def once(form: Form) -> dict[str, Any]:
        if form["assertion"] in seen:
            raise ValueError("invalid_grant")
        seen.add(form["assertion"])
        return {}

    vouching.authority.grants[JWT_BEARER] = once
    credential = enterprise(vouching)
    for _ in range(2):
        assert (await vouching.call(credential, person())).status == 200
        vouching.clock.now += 100
    assert (len(vouching.provider.forms), len(vouching.authority.forms)) == (2, 3)


async def test_a_fresh_assertion_that_is_refused_is_refused(vouching: Bench) -> None:
    vouching.authority.grants[JWT_BEARER] = refuse("invalid_grant")
    with pytest.raises(Denied, match="invalid_grant"):
        await vouching.call(enterprise(vouching), person())
    assert (len(vouching.provider.forms), len(vouching.authority.forms)) == (1, 1)


async def test_who_has_not_signed_in_is_denied(vouching: Bench) -> None:
    credential = enterprise(vouching)
    for who in (person("carol"), person("alice", issuer="https://other.example")):
        with pytest.raises(Denied, match="sign-in at the identity provider"):
            await vouching.call(credential, who)
    assert not vouching.provider.forms and not vouching.authority.shown


async def test_a_provider_that_does_not_vouch_is_the_end_of_it(vouching: Bench) -> None:
    vouching.provider.grants[EXCHANGE] = refuse("access_denied")
    with pytest.raises(Denied, match="not opened for this user by the identity provider"):
        await vouching.call(enterprise(vouching), person())
    assert not vouching.authority.forms


@pytest.mark.parametrize("changes", [{"issued_token_type": "x"}, {"token_type": "Bearer"}, {"access_token": ""}])
async def test_what_is_no_assertion_is_not_passed_on(vouching: Bench, changes: dict[str, Any]) -> None:
    good = {"access_token": "jag", "token_type": "N_A", "issued_token_type": ID_JAG}
    vouching.provider.grants[EXCHANGE] = lambda form: {"answer": {**good, **changes}}
    with pytest.raises(UpstreamError, match="gets no token"):
        await vouching.call(enterprise(vouching), person())
    assert not vouching.authority.forms


@pytest.mark.rule("OC-2")
async def test_a_provider_whose_metadata_are_anothers_gets_no_id_token(vouching: Bench) -> None:
    vouching.provider.meta = {"issuer": "https://evil.example"}
    with pytest.raises(UpstreamError, match="not its own"):
        await vouching.call(enterprise(vouching), person())
    assert not vouching.provider.forms


@pytest.mark.rule("SEC-9")
@pytest.mark.key("servers.auth.through")
async def test_agents_are_vouched_for_only_where_they_are_listed(vouching: Bench) -> None:
    credential = enterprise(vouching, through=("planner",))
    assert (await vouching.call(credential, person("alice", "planner"))).status == 200
    with pytest.raises(Denied, match="through this agent"):
        await vouching.call(credential, person("alice", "planner", "intern"))


@pytest.mark.key("servers.auth.subject_token", "servers.auth.subject_issuers")
async def test_the_callers_own_token_may_be_what_the_provider_exchanges(vouching: Bench) -> None:
    credential = enterprise(vouching, subject_token="caller", subject_issuers=(IDP,))
    with pytest.raises(Denied, match="own sign-in"):
        await vouching.call(credential, person(proof=b"1", claims={"iss": "https://us"}))
    assert (await vouching.call(credential, person(proof=b"2", claims={"iss": IDP}))).status == 200
    assert vouching.provider.forms[-1]["subject_token"] == "the-token-of-alice"


async def test_the_one_person_of_a_gateway_may_have_the_token_in_a_file(vouching: Bench) -> None:
    (vouching.folder / "id").write_text("id-of-alice\n")
    credential = enterprise(vouching, assertion_file="id")
    assert not credential.names_callers
    assert (await vouching.call(credential, None)).status == 200


async def test_nobody_vouches_for_callgate_itself(vouching: Bench) -> None:
    with pytest.raises(ConsentNeeded):
        await vouching.call(enterprise(vouching), None)
    assert not vouching.provider.forms


@pytest.mark.rule("SEC-8")
async def test_who_is_revoked_is_vouched_for_no_more_and_a_new_provider_is_asked(vouching: Bench) -> None:
    credential = enterprise(vouching)
    await vouching.call(credential, person())
    credential.forget(user_of(person()))
    vouching.house.id_tokens.clear()
    with pytest.raises(Denied):
        await vouching.call(credential, person())
    vouching.house.id_tokens[user_of(person("bob"))] = "id-of-bob"
    await vouching.call(credential, person("bob"))
    credential.forget_all()
    await vouching.call(credential, person("bob"))
    assert len(vouching.provider.forms) == 3

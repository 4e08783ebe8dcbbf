"""`identity.providers`: what holds together, and what cannot be meant."""

from __future__ import annotations

import pytest

from callgate.errors import ConfigError
from tests.config.folder import Folder

AT = "issuer: https://idp.example, client_id: us"
JWT = "jwt: [{issuer: https://idp.example, audience: us, "


def entry(provider: str, oauth: str = "oauth: {}", more: str = "") -> str:
    return f"{more}identity: {{{oauth + ', ' if oauth else ''}providers: {{main: {{{provider}}}}}}}"


@pytest.mark.parametrize(
    "text",
    [
        entry(AT),
        entry("issuer: http://127.0.0.1:9000/realms/x, client_id: us, client_secret: 'env:X'"),
        entry(f"{AT}, client_auth: private_key_jwt, algorithms: [ES512], roles_claim: '', scopes: [openid]"),
        entry(f"{AT}, client_secret: 'secret:x', client_auth: client_secret_post"),
        entry(AT, more="public_url: https://mcp.example.org\n"),
        entry(f"{AT}, subject_claim: oid", f"oauth: {{}}, {JWT}jwks_uri: 'https://i/k', subject_claim: oid}}]"),
        entry(AT, more="public_url: http://localhost:8080/\n"),
    ],
)
def test_what_can_be_meant(folder: Folder, text: str) -> None:
    assert folder.load(text).settings.identity.providers["main"].client_id == "us"


WRONG = {
    entry(AT, oauth=""): "`providers` needs `oauth`",
    entry("issuer: http://idp.example, client_id: us"): "`issuer` must begin with `https://`",
    entry("issuer: idp.example, client_id: us"): "`issuer` is not the URL of a host",
    entry("issuer: 'https://idp.example/?x=1', client_id: us"): "`issuer` has a query",
    entry("issuer: 'https://idp.example/#x', client_id: us"): "`issuer` has a query",
    entry("issuer: https://idp.example/.well-known/openid-configuration, client_id: us"): "write `https://idp.example`",
    entry(AT, "oauth: {}, " + JWT + "subject_claim: upn}]"): "`subject_claim` is not `upn`",
    entry(f"{AT}, subject_claim: oid", "oauth: {}, " + JWT + "jwks_file: k.json}]"): "`subject_claim` is not `sub`",
    entry(f"{AT}, client_secret: hunter2"): "`client_secret` must be a reference",
    entry(f"{AT}, client_auth: client_secret_basic"): "`client_secret_basic` needs a `client_secret`",
    entry(f"{AT}, client_auth: client_secret_post"): "`client_secret_post` needs a `client_secret`",
    entry(f"{AT}, client_auth: private_key_jwt, client_secret: 'env:X'"): "`private_key_jwt` needs no `client_secret`",
    entry(f"{AT}, client_auth: none, client_secret: 'env:X'"): "`none` needs no `client_secret`",
    entry(f"{AT}, client_auth: client_secret_basics"): "client_secret_basic",
    entry(f"{AT}, algorithms: [RS265]"): "did you mean `RS256`?",
    entry(f"{AT}, algorithms: [HS256]"): "algorithm `HS256` is not accepted",
    entry(f"{AT}, algorithms: [none]"): "algorithm `none` is not accepted",
    entry(f"{AT}, scopes: ['a b']"): "`a b` cannot be a scope",
    entry(f"{AT}, subject_claim: ''"): "`subject_claim` is empty",
    entry(f"{AT}, subjectclaim: oid"): "subject_claim",
    entry(AT, more="public_url: http://mcp.example.org\n"): "`public_url` must begin with `https://`",
    entry(AT, more="public_url: https://example.org/callgate\n"): "`public_url` has a path",
    entry(AT, more="listen: 0.0.0.0:8080\n"): "`providers` needs a `public_url`",
    f"identity: {{oauth: {{}}, providers: {{a b: {{{AT}}}}}}}": "`a b` cannot be the name of a provider",
    f"identity: {{oauth: {{}}, providers: {{one: {{{AT}}}, two: {{{AT}}}}}}}": "it is that of `one`",
}


@pytest.mark.rule("SEC-1", "TOK-5")
@pytest.mark.parametrize(("text", "says"), WRONG.items(), ids=[str(at) for at in range(len(WRONG))])
def test_what_cannot_be_meant(folder: Folder, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        folder.load(text)
    said = "\n".join(
        f"{each} {each.hint} {each.place and each.place.file}" for each in caught.value.problems or [caught.value]
    )
    assert says in said and "callgate.yaml" in said
    assert "hunter2" not in said

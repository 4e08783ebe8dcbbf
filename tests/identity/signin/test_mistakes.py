"""What an operator has set up wrongly: the page blames nobody else, and the log says what to mend and where."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.identity.signin.idp import Browser, lobby

pytestmark = pytest.mark.anyio

NOT_SET_UP = b"This gateway is not set up right for "


async def test_a_secret_that_is_not_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with lobby(tmp_path, client_secret="secret:nowhere") as stand:
        reply = await Browser().go(stand.url())
        assert reply.status == 502 and NOT_SET_UP in reply.body and b"nowhere" not in reply.body
    assert (
        "no sign-in at `main`: needs the secret `nowhere`, which is not set (`callgate secret set nowhere`"
        in caplog.text
    )


async def test_a_client_that_the_provider_does_not_know(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with lobby(tmp_path, client_auth="private_key_jwt", client_secret=None) as stand:
        stand.idp.audience = "nobody can guess"  # it refuses every assertion
        reply = await Browser().go(stand.url())
        assert reply.status == 502 and NOT_SET_UP in reply.body
    assert "no sign-in at `main`: does not accept callgate's client: it answered `invalid_client` (401)" in caplog.text
    assert "(Compare `client_id`, `client_secret` and `client_auth` with what is registered there.)" in caplog.text


async def test_an_issuer_that_is_written_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.said = {"issuer": "https://other.example"}
        assert (await Browser().go(stand.url())).status == 502
    assert "it is that of another issuer, 'https://other.example' (`issuer` must be exactly that)" in caplog.text


async def test_clocks_that_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with lobby(tmp_path) as stand:
            stand.idp.changes = {"iat": 9_999_999_999}
            assert (await Browser().go(stand.url())).status == 403
    assert "iat lies in the future (The clocks of this machine and of the provider differ" in caplog.text


async def test_a_claim_for_roles_that_is_not_there_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with lobby(tmp_path, roles_claim="realm_access.roles") as stand:
            browser = await stand.sign_in()
            assert b"<dt>Roles</dt><dd>none</dd>" in (await browser.get(stand.url())).body
            await stand.sign_in()
    assert caplog.text.count("there is no claim `realm_access.roles` (`roles_claim`)") == 1


async def test_who_may_not_come_in_is_led_to_another_account(tmp_path: Path) -> None:
    async with lobby(tmp_path, required_claims={"hd": "example.org"}) as stand:
        reply = await Browser().go(stand.url(back="/oauth/connections"))
        assert reply.status == 403 and b"Use another account" in reply.body
        assert b"back=%2Foauth%2Fconnections&amp;provider=main&amp;prompt=select_account" in reply.body


async def test_a_provider_that_knows_no_choice_of_accounts_is_asked_for_a_new_sign_in(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        await stand.sign_in(prompt="select_account")
    (tmp_path / "other").mkdir()
    async with lobby(tmp_path / "other") as another:
        another.idp.said = {"prompt_values_supported": ["none", "login", "consent"]}
        await another.sign_in(prompt="select_account")
    assert [each.idp.asked[0]["prompt"] for each in (stand, another)] == ["select_account", "login"]


async def test_a_scope_that_the_client_may_not_ask_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.back = {"code": None, "error": "invalid_scope", "error_description": "evil words"}
        reply = await Browser().go(stand.url())
        assert reply.status == 502 and NOT_SET_UP in reply.body and b"evil" not in reply.body
    assert "the provider answered `invalid_scope` (Compare `scopes` with what the client may ask for" in caplog.text
    assert "evil" not in caplog.text

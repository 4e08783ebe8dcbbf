"""One identity provider, with callgate as its relying party (OpenID Connect, authorization code with PKCE)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from callgate.config import Provider
from callgate.errors import CallgateError, ConfigError, Denied, UpstreamError
from callgate.identity.claims import claim_at
from callgate.identity.oauth.surroundings import Surroundings
from callgate.identity.openid import Undiscovered
from callgate.identity.refusal import Refused

from .attempts import Attempt
from .discovery import Discovery, Metadata
from .endpoints import Answered, ClientRefused, Endpoints, Sign
from .fingerprint import fingerprint
from .id_token import IdTokens
from .mapping import has_all, person_of
from .person import Person, ProviderTokens
from .problem import SignInError, misconfigured, not_proved, unavailable

log = logging.getLogger("callgate.identity")

CALLBACK = "/oauth/callback"
#: Error codes of the standards; of others the person learns nothing.
_DECLINED = {
    "access_denied": "The sign-in was cancelled, or the identity provider does not let you in.",
    "login_required": "The identity provider wants you to sign in there first.",
    "interaction_required": "The identity provider wants you to sign in there first.",
    "account_selection_required": "The identity provider wants you to choose an account.",
    "consent_required": "The identity provider wants you, or your administrator, to agree to this sign-in.",
    "temporarily_unavailable": "The identity provider is busy. Try again in a moment.",
    "server_error": "The identity provider has a problem of its own. Try again in a moment.",
}
#: What the operator has to mend, in the settings here or in the registration there.
_NOT_SET_UP = {
    "invalid_request": "The provider's own log says what it misses.",
    "invalid_scope": "Compare `scopes` with what the client may ask for there.",
    "unauthorized_client": "Allow the client the authorization code there.",
    "unsupported_response_type": "Allow the client the authorization code there.",
}
_MOST_CODE = 8192
_MOST_HINT = 6000  # characters of an ID token in a URL


class IdentityProvider:
    """One entry of ``identity.providers``."""

    def __init__(
        self, name: str, config: Provider, around: Surroundings, sign: Sign, clock: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self.config = config
        self.title = config.title or name
        self.fingerprint = fingerprint(config)
        self._noted = False
        self._base = around.base
        self._fetch = around.fetch
        self._discovery = Discovery(config.issuer, around.fetch)
        self._id_tokens = IdTokens(config, self._load_keys, clock)
        self._endpoints = Endpoints(config, around.resolve, sign)

    async def departure(self, state: str, attempt: Attempt, prompt: str = "") -> str:
        """The URL of the provider's page for this attempt. Raises SignInError."""
        found = await self._metadata()
        asked = {
            "response_type": "code",
            "client_id": self.config.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self.config.scopes))),
            "state": state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        if prompt:  # there every sign-in may be one with another account
            asked["prompt"] = prompt if prompt != "select_account" or found.lets_choose else "login"
        joint = "&" if "?" in found.authorization_endpoint else "?"
        return f"{found.authorization_endpoint}{joint}{urlencode(asked)}"

    async def arrival(self, query: Mapping[str, str], attempt: Attempt) -> tuple[Person, ProviderTokens]:
        """Who comes back, by the answer in the redirect. Raises SignInError."""
        found = await self._metadata()
        # Before anything else of the answer is looked at: on a mismatch it may be anybody's (rule OC-6).
        if query.get("iss", "" if found.sends_iss else attempt.issuer) != attempt.issuer:
            raise not_proved("iss of the answer is missing or not the provider that was asked")
        code = query.get("code", "")
        if "error" in query:
            raise not_proved("the answer has a code and an error") if code else _declined(self.title, query["error"])
        if not 0 < len(code) <= _MOST_CODE:
            raise not_proved("the answer has no code")
        try:
            return await self._redeem(code, attempt, found)
        except Refused as refused:
            raise not_proved(refused.reason) from None
        except Denied as denied:
            raise not_proved(f"the code was not accepted: {denied.message}") from None
        except (ConfigError, ClientRefused) as error:
            raise misconfigured(self.title, error.message, error.hint) from None
        except CallgateError as error:
            raise unavailable(self.title, error.message) from None

    async def refreshed(self, tokens: ProviderTokens) -> ProviderTokens:
        """New tokens for those that are kept. Raises Denied when the provider ended the grant, else UpstreamError."""
        try:
            found = await self._discovery.metadata()
        except Undiscovered as why:
            raise UpstreamError(f"its identity provider cannot be discovered: {why}") from None
        form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
        answered = await self._endpoints.tokens(found.token_endpoint, form)
        kept = msgspec.structs.replace(tokens, refresh_token=answered.refresh_token or tokens.refresh_token)
        if not answered.id_token:
            return kept
        try:
            claims = await self._id_tokens.verify(answered.id_token, "", answered.access_token)
            # OpenID Connect Core 1.0, section 12.2.
            if claims["sub"] != tokens.subject:
                raise Refused("not accepted", "sub is somebody else's")
        except Refused as refused:
            raise UpstreamError(
                f"its identity provider refreshed a token that does not hold: {refused.reason}"
            ) from None
        return msgspec.structs.replace(kept, id_token=answered.id_token, expires=float(claims["exp"]))

    async def sign_out_url(self, id_token: str) -> str:
        """Where the person can sign out of the provider too (RP-Initiated Logout 1.0); empty: nowhere."""
        try:
            found = await self._discovery.metadata()
        except Undiscovered:
            return ""
        if not found.end_session_endpoint:
            return ""
        asked = {"client_id": self.config.client_id}
        if 0 < len(id_token) <= _MOST_HINT:  # Okta does not do without
            asked["id_token_hint"] = id_token
        joint = "&" if "?" in found.end_session_endpoint else "?"
        return f"{found.end_session_endpoint}{joint}{urlencode(asked)}"

    async def aclose(self) -> None:
        await self._discovery.aclose()
        await self._id_tokens.aclose()
        await self._endpoints.aclose()

    @property
    def _redirect_uri(self) -> str:
        return self._base() + CALLBACK

    async def _metadata(self) -> Metadata:
        try:
            return await self._discovery.metadata()
        except Undiscovered:  # the log has said why
            raise unavailable(self.title, "its discovery document cannot be used") from None

    async def _load_keys(self) -> bytes:
        return await self._fetch((await self._discovery.metadata()).jwks_uri)

    async def _redeem(self, code: str, attempt: Attempt, found: Metadata) -> tuple[Person, ProviderTokens]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": attempt.verifier,
        }
        answered = await self._endpoints.tokens(found.token_endpoint, form)
        if not answered.id_token:
            raise Refused("not accepted", "there is no ID token; the client needs the scope `openid`")
        claims = await self._id_tokens.verify(answered.id_token, attempt.nonce, answered.access_token)
        told = await self._completed(claims, answered, found)
        person = person_of(self.name, self.config, told)
        self._note_missing(told)
        tokens = ProviderTokens(
            self.name,
            self.config.issuer,
            claims["sub"],
            answered.id_token,
            float(claims["exp"]),
            answered.refresh_token,
        )
        return person, tokens

    def _note_missing(self, claims: Mapping[str, Any]) -> None:
        """Say once that the claim with the roles is not there: rules for roles that match nobody have no other sign."""
        wanted = self.config.roles_claim
        if wanted and not self._noted and claim_at(claims, wanted) is None:
            self._noted = True
            log.info(
                "sign-in at `%s`: there is no claim `%s` (`roles_claim`), so no roles come from it", self.name, wanted
            )

    async def _completed(self, claims: dict[str, Any], answered: Answered, found: Metadata) -> dict[str, Any]:
        """The claims with those of the userinfo endpoint, where the ID token lacks some that the mapping looks at."""
        if has_all(claims, self.config) or not found.userinfo_endpoint:
            return claims
        more = await self._endpoints.userinfo(found.userinfo_endpoint, answered.access_token)
        if more.get("sub") != claims["sub"]:
            raise Refused("not accepted", "the userinfo endpoint speaks of somebody else")
        if more.get("email") != claims.get("email", more.get("email")):
            more.pop("email_verified", None)  # it vouches for another address
        return {**more, **claims}


def _declined(title: str, code: str) -> SignInError:
    if code in _NOT_SET_UP:
        return misconfigured(title, f"the provider answered `{code}`", _NOT_SET_UP[code])
    known = code if code in _DECLINED else ""
    message = _DECLINED.get(known, "The identity provider did not sign you in.")
    return SignInError(message, f"the provider answered {known or 'an error'}", 403)

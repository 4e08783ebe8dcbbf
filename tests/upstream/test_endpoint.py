"""What a server repeats of the credential that it was shown, in the spelling of its encoder."""

from __future__ import annotations

import json

import pytest

from callgate.egress import Response
from callgate.upstream.endpoint import _hidden

TOKEN = 'ab/cd+ef"gh\\ij==0123456789'


def shown(body: str) -> str:
    response = Response(200, {})
    response.body = body.encode()
    _hidden(response, f"authorization: Bearer {TOKEN}\r\n".encode())
    return response.body.decode()


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize(
    "said",
    [
        TOKEN,
        json.dumps(TOKEN),
        json.dumps(TOKEN).replace("/", "\\/"),
        r'"ab/cd\u002Bef\u0022gh\\ij==0123456789"',
    ],
    ids=["as it is", "json", "php", "dotnet"],
)
def test_a_token_is_hidden_in_the_spelling_of_usual_encoders(said: str) -> None:
    assert shown(f"you sent {said}.") in ("you sent ********.", 'you sent "********".')

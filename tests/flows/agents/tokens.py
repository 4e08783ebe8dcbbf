"""What every agent of the story does before it works: exchange the token that it was handed for one of its own."""

from __future__ import annotations

import os

import httpx

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"


def own_token(handed: str) -> str:
    """A token for this agent, acting for whoever the handed one is for."""
    form = {"grant_type": EXCHANGE, "subject_token": handed, "subject_token_type": ACCESS}
    credentials = (os.environ["AGENT"], os.environ["AGENT_SECRET"])
    answer = httpx.post(f"{os.environ['GATEWAY']}/oauth/token", data=form, auth=credentials, timeout=20)
    answer.raise_for_status()
    return str(answer.json()["access_token"])

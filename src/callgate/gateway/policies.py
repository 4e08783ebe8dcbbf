"""The policy of a configuration, and what it does with answers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from callgate.catalog import believed
from callgate.config import Loaded, Settings
from callgate.errors import ConfigError, Denied
from callgate.gateway.scopes import ScopeRules
from callgate.policy import Policy, TestResult, believing, load_policy, open_policy
from callgate.types import Answer, Call, Shadow

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked

log = logging.getLogger("callgate")
#: Bytes of a result that are looked into between two turns of the event loop.
AT_ONCE = 16 * 1024


def policy_of(loaded: Loaded, *, loopback: bool) -> Policy:
    """The configured policy, its tests passed; raises ``ConfigError``."""
    if not loaded.policy:
        return open_policy()
    policy = load_policy(loaded.policy, covers=ScopeRules(loaded.settings.identity).covered)
    if not policy.enforced and not loopback:
        raise ConfigError(
            "The whole policy is in shadow mode, so nothing is in force, and other machines reach the gateway.",
            hint="Name a policy that is in force, or listen on a loopback address.",
        )
    failed = policy.first_failure()
    if failed is not None:
        raise _failing(failed)
    for line in warnings(policy, loaded.settings):
        log.warning(line)
    return policy


def _failing(failed: TestResult) -> ConfigError:
    expected = f"{failed.expected} by {failed.expected_by}" if failed.expected_by else failed.expected
    got = f"{failed.got} by {failed.by or 'default'}"
    return ConfigError(
        f"A test of the policy fails: {failed.name} expects {expected}, got {got}.",
        hint="Run `callgate policy test` for all of them.",
        place=failed.place,
    )


def warnings(policy: Policy, settings: Settings) -> list[str]:
    """What would surprise whoever wrote the rules: an allow rule that waits for what nobody believes (POL-6)."""
    rules = believing(policy)
    if not rules or believed(settings):
        return []
    unheard = [
        name for name, server in settings.servers.items() if server.annotations == "auto" and not server.classify
    ]
    if not unheard:
        return []
    return [
        f"policy: the rules {', '.join(rules)} allow by what is known of a tool, and what these servers say of theirs "
        f"is not believed: {', '.join(unheard)}. Say it with `servers.NAME.classify`, or `servers.NAME.annotations`."
    ]


async def treated(answer: Answer, call: Call, asked: Asked, house: House) -> Answer:
    """The answer as the rules over results let the caller read it; raises ``Denied`` for one that is blocked."""
    policy = house.policy
    tried = policy.treatment(call, shadow=True)
    if tried is not None and asked.verdict.shadow is None:
        shadow = Shadow(tried.effect, tried.rules[0])
        asked.verdict = msgspec.structs.replace(asked.verdict, shadow=shadow)
    treatment = policy.treatment(call)
    if treatment is None:
        return answer
    try:
        if len(answer.result) > AT_ONCE:
            return await asyncio.to_thread(policy.treated, treatment, answer)
        return policy.treated(treatment, answer)
    except Denied as denied:
        asked.verdict = msgspec.structs.replace(denied.verdict, shadow=asked.verdict.shadow)
        raise

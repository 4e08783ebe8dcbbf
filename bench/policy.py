"""What the policy alone costs: ``python -m bench.policy`` prints microseconds, best of several runs in one process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from callgate.config import parse_document
from callgate.policy import Policy, load_policy
from callgate.types import Call, Front, Principal, Tool

WHO = Principal("alice", "key:alice", roles=("r3", "dev"), via="key")
FRONT = Front()


def rules(count: int) -> list[dict[str, Any]]:
    """As teams write them: by role and glob, some with conditions, one of which looks at arguments."""
    made: list[dict[str, Any]] = [
        {"id": "small", "allow": ["s1/*"], "to": {"roles": ["dev"]}, "when": "args.amount < 500"},
        {"id": "reads", "allow": ["*/*"], "to": {"roles": ["dev"]}, "operations": ["read"]},
        {"id": "no", "deny": ["*/delete_*"]},
    ]
    for at in range(count - len(made)):
        rule: dict[str, Any] = {"id": f"r{at}", "allow": [f"s{at % 40}/t_{at}*"], "to": {"roles": [f"r{at % 10}"]}}
        if at % 5 == 0:
            rule["when"] = "tool.readOnly"
        made.append(rule)
    return made


def policy(count: int) -> Policy:
    return load_policy([parse_document(json.dumps({"rules": rules(count)}), "policy.json")])


def tools(count: int) -> list[Tool]:
    return [
        Tool(f"s{at % 40}", f"t_{at}", f"s{at % 40}__t_{at}", b'{"name":"t"}', read_only=at % 3 == 0,
             operation="read" if at % 3 == 0 else "write")
        for at in range(count)
    ]  # fmt: skip


def best(run: Callable[[], object], times: int, rounds: int = 7) -> float:
    """Microseconds of one run, in the fastest of the rounds."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(times):
            run()
        found.append((time.perf_counter() - begun) / times)
    return min(found) * 1e6


def figures() -> dict[str, float]:
    thousand, hundred, many = policy(1000), policy(100), tools(1000)
    plain = Call(0, WHO, many[3], {}, FRONT, 0)
    argued = Call(0, WHO, many[1], {"amount": 3}, FRONT, 0)
    assert thousand.decide(plain).effect == thousand.decide(argued).effect == "allow"

    def unseen() -> None:
        """A caller whom the policy has not met: its mask is made."""
        thousand.decide(Call(0, Principal("bob", "k", roles=("dev",)), many[3], {}, FRONT, 0))

    def filtered() -> None:
        """The list of a caller whom the policy has not met."""
        hundred.visible(Principal("bob", "k", roles=("dev", "r1")), many, FRONT)

    hundred.prepare(many)
    return {
        "decision, 1,000 rules": best(lambda: thousand.decide(plain), 20_000),
        "decision, 1,000 rules, a condition over arguments": best(lambda: thousand.decide(argued), 5_000),
        "first decision for a caller, 1,000 rules": best(unseen, 50),
        "list of 1,000 tools, 100 rules": best(lambda: hundred.visible(WHO, many, FRONT), 50),
        "first list for a caller, 1,000 tools, 100 rules": best(filtered, 50),
        "compiling 1,000 rules": best(lambda: policy(1000), 1, 3),
    }


if __name__ == "__main__":
    for name, microseconds in figures().items():
        print(f"{microseconds:>12,.1f} µs  {name}")

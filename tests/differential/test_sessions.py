"""Random sessions, spoken to the fixture directly and through callgate, step by step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.conformance.gateway import in_front_of
from tests.differential.observed import essence
from tests.differential.speaker import ANSWERS, Seen, Speaker
from tests.processes import start_fixture

pytestmark = [pytest.mark.slow]

PLAIN = st.sampled_from(
    ["test_simple_text", "test_image_content", "test_audio_content", "test_embedded_resource", "test_error_handling",
     "test_multiple_content_types", "test_tool_with_progress", "test_logging_tool",
     "test_tool_with_logging", "json_schema_2020_12_tool", "no_such_tool"]
)  # fmt: skip
ASKING = st.sampled_from(
    ["test_missing_capability", "test_sampling", "test_elicitation",
     "test_elicitation_sep1034_defaults", "test_streaming_elicitation",
     "test_input_required_result_elicitation", "test_input_required_result_sampling",
     "test_input_required_result_list_roots", "test_input_required_result_multi_round",
     "test_input_required_result_multiple_inputs", "test_input_required_result_request_state"]
)  # fmt: skip
URIS = st.sampled_from(
    ["test://static-text", "test://static-binary", "test://watched-resource", "test://template/7/data", "test://none"]
)
PROMPTS = st.sampled_from(
    ["test_simple_prompt", "test_prompt_with_arguments", "test_prompt_with_image",
     "test_prompt_with_embedded_resource", "no_such_prompt"]
)  # fmt: skip
WORDS = st.text(max_size=12)


class Session(RuleBasedStateMachine):
    """One random session. ``urls`` (direct, through the door) is set by the test."""

    urls: tuple[str, str]

    @initialize(era=st.sampled_from(["legacy", "modern"]), silent=st.booleans())
    def connect(self, era: str, silent: bool) -> None:
        capabilities: dict[str, Any] = {} if silent else {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
        self.era = era
        # A legacy client that cannot be asked anything shares a modern link with everybody. This server's tools that
        # ask answer it in the way of that era, so there is nothing to compare.
        self.asks = not (silent and era == "legacy")
        self.speakers = [Speaker(url, era, capabilities) for url in self.urls]
        direct, door = (each.greeting["result"]["capabilities"] for each in self.speakers)
        assert direct.keys() <= door.keys() | {"experimental"}, (direct, door)

    def teardown(self) -> None:
        for each in getattr(self, "speakers", []):
            each.close()

    def both(self, method: str, params: dict[str, Any]) -> Seen:
        direct, door = (each.ask(method, params) for each in self.speakers)
        assert essence(direct) == essence(door), (method, params)
        if self.era == "modern" and "error" not in direct:
            assert direct["status"] == door["status"] == 200
        return door

    def converse(self, params: dict[str, Any]) -> None:
        """A call with all its rounds (each side brings back its own state)."""
        states: list[Any] = [params, params]
        for _ in range(5):
            seen = [speaker.ask("tools/call", given) for speaker, given in zip(self.speakers, states, strict=True)]
            assert essence(seen[0]) == essence(seen[1]), params
            if seen[0].get("result", {}).get("resultType") != "input_required":
                return
            states = [_retried(params, each["result"]) for each in seen]

    @rule(name=PLAIN)
    def call(self, name: str) -> None:
        self.both("tools/call", {"name": name, "arguments": {}})

    @rule(text=WORDS)
    def echo(self, text: str) -> None:
        self.both("tools/call", {"name": "echo", "arguments": {"text": text}})

    @rule()
    def progress(self) -> None:
        token = {"_meta": {"progressToken": "t-1"}}
        self.both("tools/call", {"name": "test_tool_with_progress", "arguments": {}, **token})

    @precondition(lambda self: self.asks)
    @rule(name=ASKING)
    def asking(self, name: str) -> None:
        self.converse({"name": name, "arguments": {"message": "Who are you?", "prompt": "Say a number"}})

    @rule(method=st.sampled_from(["tools/list", "prompts/list", "resources/list", "resources/templates/list"]))
    def list_(self, method: str) -> None:
        self.both(method, {})

    @rule(uri=URIS)
    def read(self, uri: str) -> None:
        self.both("resources/read", {"uri": uri})

    @rule(name=PROMPTS, one=WORDS)
    def prompt(self, name: str, one: str) -> None:
        self.both("prompts/get", {"name": name, "arguments": {"arg1": one, "resourceUri": "test://static-text"}})

    @rule(start=st.sampled_from(["", "p", "par", "x"]))
    def complete(self, start: str) -> None:
        ref = {"type": "ref/prompt", "name": "test_prompt_with_arguments"}
        self.both("completion/complete", {"ref": ref, "argument": {"name": "arg1", "value": start}})

    @rule(method=st.sampled_from(["no/such", "tools/nothing", "sampling/createMessage"]))
    def unknown(self, method: str) -> None:
        self.both(method, {})

    @precondition(lambda self: self.era == "legacy")
    @rule(level=st.sampled_from(["debug", "info"]))
    def level(self, level: str) -> None:
        self.both("logging/setLevel", {"level": level})

    @precondition(lambda self: self.era == "legacy")
    @rule(verb=st.sampled_from(["subscribe", "unsubscribe"]), uri=URIS.filter(lambda uri: "none" not in uri))
    def watch(self, verb: str, uri: str) -> None:
        self.both(f"resources/{verb}", {"uri": uri})

    @precondition(lambda self: self.era == "legacy")
    @rule()
    def ping(self) -> None:
        self.both("ping", {})


def _retried(params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    asked = result.get("inputRequests", {})
    brought: dict[str, Any] = {"inputResponses": {key: ANSWERS[each["method"]] for key, each in asked.items()}}
    if "requestState" in result:
        brought["requestState"] = result["requestState"]
    return {**params, **brought}


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="differential-")))
        direct, behind = (stack.enter_context(_fixture(folder / name)) for name in ("direct", "behind"))
        yield direct.url, stack.enter_context(in_front_of(behind.url, folder, "fixture"))[1]


class _fixture(ExitStack):
    """A fixture of its own in this folder; what one side does to its server must not reach the other's."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        running, self.url = start_fixture(folder)
        self.enter_context(running)


def test_a_session_through_the_door_is_a_session_with_the_server(urls: tuple[str, str]) -> None:
    Session.urls = urls
    run_state_machine_as_test(
        Session,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # every step is a round trip to three processes: a long story beats a long wait
        ),
    )

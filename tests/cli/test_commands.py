"""The commands that talk to a running gateway, run as users run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.office import ANN, BOB, EVE, Office, run
from tests.processes import environment, free_port


def test_ls_lists_servers_with_their_state(office: Office) -> None:
    done = office.cli("ls")
    states = {row[0]: row[1] for row in done.rows}
    assert done.status == 0
    assert states == {"notes": "ready", "cellar": "ready", "gone": "failed"}
    assert any("no-such-program" in row[-1] for row in done.rows)


def test_ls_of_a_server_lists_its_tools(office: Office) -> None:
    done = office.cli("ls", "notes")
    assert next(row for row in done.rows if row[0] == "notes/read")[:2] == ["notes/read", "read-only"]
    assert "notes/größe" in {row[0] for row in done.rows}
    assert "\x1b" not in done.out


def test_ls_of_an_unknown_server_names_the_nearest(office: Office) -> None:
    done = office.cli("ls", "note")
    assert done.status == 4
    assert "Did you mean `notes`?" in done.err
    assert done.out == ""


def test_ls_of_a_server_without_tools_says_why(office: Office) -> None:
    done = office.cli("ls", "gone")
    assert (done.status, done.out) == (0, "")
    assert "Server `gone` has failed: could not be started" in done.err


@pytest.mark.parametrize("output", ["json", "yaml", "jsonl", "table"])
def test_every_output_format_holds_the_same(office: Office, output: str) -> None:
    done = office.cli("ls", "-o", output)
    if output == "table":
        read = [{"name": line.split()[0]} for line in done.out.splitlines()[1:]]
    elif output == "jsonl":
        read = [json.loads(line) for line in done.out.splitlines()]
    else:
        read = json.loads(done.out) if output == "json" else yaml.safe_load(done.out)
    assert {each["name"] for each in read} == {"notes", "cellar", "gone"}


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_there_is_a_table_and_colour_unless_refused(office: Office, no_color: str) -> None:
    import pty

    outer, inner = pty.openpty()
    env = environment({"CALLGATE_URL": office.url, "TERM": "xterm", "NO_COLOR": no_color, "COLUMNS": "120"})
    with subprocess.Popen([sys.executable, "-m", "callgate", "ls"], env=env, stdout=inner, stderr=inner) as process:
        process.wait(30)
    os.close(inner)
    shown = os.read(outer, 65536).decode()
    os.close(outer)
    assert "SERVER" in shown and "notes" in shown
    assert ("\x1b[32m" in shown) is (no_color == "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("follow", [False, True])
def test_logs_takes_one_line_a_call_on_a_narrow_terminal(office: Office, follow: bool) -> None:
    import pty

    made = office.call("notes/read", "page=1", token=BOB)
    outer, inner = pty.openpty()
    env = environment({"CALLGATE_URL": office.url, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80"})
    command = [sys.executable, "-m", "callgate", "logs", "--limit", "1", "--subject", "bob", *["-f"] * follow]
    with subprocess.Popen(command, env=env, stdout=inner, stderr=inner) as process:
        shown = ""
        while made not in shown:
            shown += os.read(outer, 65536).decode()
        process.terminate() if follow else process.wait(30)
    os.close(inner)
    os.close(outer)
    (line,) = [line for line in shown.splitlines() if made in line]
    assert len(line) <= 80
    assert "bob" in line and "notes/read" in line and "every" in line


def test_call_prints_the_answer_on_stdout_and_the_call_id_on_stderr(office: Office) -> None:
    done = office.cli("call", "notes/read", "page=3", "lines=4", "tags=[1]", "x=plain", token=ANN)
    assert done.status == 0
    assert json.loads(done.out) == {"page": "3", "lines": 4, "tags": [1], "x": "plain"}
    assert re.search(r"^call \w{13}$", done.err, re.MULTILINE)


def test_call_takes_json_and_stdin(office: Office) -> None:
    given = office.cli("call", "notes/read", "--json", '{"a": {"b": null}}', token=ANN)
    piped = office.cli("call", "notes/read", "-", token=ANN, stdin='{"a": {"b": null}}')
    assert json.loads(given.out) == json.loads(piped.out) == {"a": {"b": None}}


def test_call_shows_the_whole_result_as_json(office: Office) -> None:
    done = office.cli("call", "notes/measure", "-o", "json", token=ANN)
    assert json.loads(done.out)["structuredContent"] == {"pages": 3}
    assert json.loads(office.cli("call", "notes/measure", token=ANN).out) == {"pages": 3}


def test_call_shows_progress_and_log_messages_on_stderr(office: Office) -> None:
    done = office.cli("call", "notes/count", token=ANN)
    assert done.out == "{}\n"
    assert "progress 1/2 half" in done.err
    assert "warning: nearly there" in done.err


@pytest.mark.rule("HDR-2", "HDR-7")
def test_call_sends_names_and_mirrored_arguments_as_headers_carry_them(office: Office) -> None:
    assert office.cli("call", "notes/größe", "a=1", token=ANN).out == '{"a": 1}\n'
    assert office.cli("call", "notes/post", "region=Österreich ", token=ANN).out == '{"region": "Österreich "}\n'


def test_call_of_a_tool_that_fails_exits_1(office: Office) -> None:
    done = office.cli("call", "notes/fail", token=ANN)
    assert (done.status, done.out) == (1, "it went wrong\n")
    assert "the tool reported an error" in done.err


def test_call_that_the_server_refuses_exits_1(office: Office) -> None:
    done = office.cli("call", "notes/refuse", token=ANN)
    assert done.status == 1
    assert "not today" in done.err


def test_call_of_a_tool_that_needs_an_ai_client_says_so(office: Office) -> None:
    needed = 'data={"requiredCapabilities": {"sampling": {}}}'
    done = office.cli("call", "notes/refuse", "code=-32021", needed, token=ANN)
    assert done.status == 1
    assert "call this tool from an AI client" in done.err


def test_call_of_an_unknown_tool_exits_4_with_the_nearest_name(office: Office) -> None:
    done = office.cli("call", "notes/raed", token=ANN)
    assert done.status == 4
    assert "Did you mean `read`?" in done.err


def test_call_of_an_unknown_server_exits_4_with_the_nearest_name(office: Office) -> None:
    done = office.cli("call", "nots/read", token=ANN)
    assert done.status == 4
    assert "Did you mean `notes`?" in done.err


def test_call_of_a_server_by_a_name_that_no_url_holds_exits_4(office: Office) -> None:
    done = office.cli("call", "my notes/read", token=ANN)
    assert done.status == 4
    assert "There is no server `my notes`" in done.err and "Did you mean `notes`?" in done.err


def test_call_names_an_option_that_it_does_not_have(office: Office) -> None:
    done = office.cli("call", "notes/read", "--jsn", "{}", token=ANN)
    assert done.status == 2
    assert "There is no option `--jsn`" in done.err


def test_call_that_is_denied_exits_5_and_does_not_name_the_rule(office: Office) -> None:
    done = office.cli("call", "notes/burn", token=ANN)
    assert done.status == 5
    assert "callgate why" in done.err
    assert "no-burning" not in done.err


def test_call_that_needs_approval_exits_6(office: Office) -> None:
    assert office.cli("call", "notes/lend", "days=9", token=ANN).status == 6
    assert office.cli("call", "notes/lend", "days=1", token=ANN).status == 0


def test_call_that_takes_too_long_or_breaks_exits_7(office: Office) -> None:
    assert office.cli("call", "notes/sleep", token=ANN).status == 7


def test_call_without_or_with_a_wrong_key_exits_8(office: Office) -> None:
    for token in ("", "cg_mallory"):
        done = office.cli("call", "notes/read", token=token)
        assert done.status == 8
        assert "--token" in done.err


def test_the_operators_token_is_no_key_to_the_gateway(office: Office) -> None:
    assert office.cli("call", "notes/read", token=office.token).status == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ("call", "notes"),
        ("call", "notes/read", "page"),
        ("call", "notes/read", "a=1", "a=2"),
        ("call", "notes/read", "--json", "[1]"),
        ("call", "notes/read", "a=1", "--json", "{}"),
        ("call", "notes/read", "-", "a=1"),
        ("logs", "--outcome", "dneied"),
        ("logs", "--since", "yesterday"),
        ("logs", "-f", "-o", "json"),
        ("why", "not-an-id"),
        ("ls", "-o", "xml"),
    ],
)
def test_a_wrong_command_line_exits_2(office: Office, arguments: tuple[str, ...]) -> None:
    done = office.cli(*arguments, token=ANN if arguments[0] == "call" else "")
    assert done.status == 2
    assert done.err.startswith("error[CG0200]")


def test_an_unreachable_gateway_exits_7_and_says_how_to_start_one(office: Office) -> None:
    for command in (("ls",), ("call", "notes/read")):
        done = office.cli(*command, "--url", f"http://127.0.0.1:{free_port()}")
        assert done.status == 7
        assert "callgate up" in done.err


def test_something_else_on_the_port_is_not_taken_for_a_gateway(office: Office) -> None:
    done = office.cli("ls", "--url", office.admin)
    assert done.status == 7
    assert "is not callgate" in done.err


@pytest.mark.parametrize("suffix", ["", "/", "/mcp", "/mcp/reader", "/servers/notes/mcp"])
def test_the_url_may_be_that_of_an_endpoint(office: Office, suffix: str) -> None:
    from callgate.cli.remote import base_of

    assert base_of(office.url + suffix) == office.url


def test_logs_shows_the_calls_of_everybody_to_the_operator(office: Office) -> None:
    denied, read = office.call("notes/burn"), office.call("notes/read", token=BOB)
    rows = {row[-1]: row for row in office.cli("logs", "--limit", "1000").rows}
    assert rows[denied][1:5] == ["ann", "notes/burn", "denied", "no-burning"]
    assert rows[read][1:5] == ["bob", "notes/read", "ok", "everybody-reads"]


def test_logs_filters(office: Office) -> None:
    denied, read = office.call("notes/burn"), office.call("notes/read", token=BOB)

    def ids(*arguments: str) -> set[str]:
        return {json.loads(line)["id"] for line in office.cli("logs", "-o", "jsonl", *arguments).out.splitlines()}

    assert denied in ids("--outcome", "denied,refused") and read not in ids("--outcome", "denied,refused")
    assert read in ids("--subject", "bob") and denied not in ids("--subject", "bob")
    assert denied in ids("--tool", "b*n") and read not in ids("--tool", "b*n")
    assert {denied, read} <= ids("--server", "notes", "--since", "10m", "--limit", "1000")
    assert ids("--server", "cellar") == set()
    assert len(ids("--limit", "1")) == 1


def test_logs_for_everybody_else_shows_their_own_calls(office: Office) -> None:
    mine, yours = office.call("notes/read", token=BOB), office.call("notes/read")
    ids = {row[-1] for row in office.cli("logs", "--limit", "1000", token=BOB).rows}
    assert mine in ids and yours not in ids
    assert yours in {row[-1] for row in office.cli("logs", "--limit", "1000", token=EVE).rows}


def test_logs_follows_what_is_written(office: Office) -> None:
    before = office.call("notes/read")
    env = environment({"CALLGATE_URL": office.url, "HOME": str(office.folder)})
    command = [sys.executable, "-m", "callgate", "logs", "-f", "-o", "jsonl", "--subject", "bob", "--limit", "1"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            wanted = [office.call("notes/read", token=BOB), office.call("notes/burn", token=BOB)]
            seen: list[str] = []
            deadline = time.monotonic() + 20
            while wanted[-1] not in seen and time.monotonic() < deadline:
                seen.append(json.loads(following.stdout.readline())["id"])
        finally:
            following.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            _, said = following.communicate(timeout=10)
    assert seen[-2:] == wanted
    assert "Traceback" not in said
    assert os.name != "posix" or following.returncode == 130
    assert before not in seen and len(seen) == len(set(seen))


def test_why_names_the_rule_with_its_place(office: Office) -> None:
    done = office.cli("why", office.call("notes/burn", "page=1"))
    assert done.status == 0
    assert "ann called notes/burn: denied" in done.out
    assert f"no-burning at {office.folder / 'policy.yaml'}:9" in done.out
    assert "books are not burnt" in done.out
    assert "=> no-burning" in done.out
    told = json.loads(office.cli("why", office.call("notes/lend", "days=9"), "-o", "json").out)
    assert told["rule"]["id"] == "long-loans"
    assert told["call"]["args"] == {"days": 9}
    assert told["explanation"]["verdict"]["effect"] == "ask"


def test_a_configuration_in_place_of_a_policy_file_is_named_as_one(office: Office) -> None:
    for command in (("test",), ("explain", "notes/read")):
        done = office.cli("policy", *command, "callgate.yaml")
        assert done.status == 3 and "`callgate.yaml` is a configuration, not a policy file" in done.err
        assert "`-c callgate.yaml`" in done.err
        assert office.cli("policy", *command, "-c", "callgate.yaml").status == 0


def test_logs_and_why_name_the_method_where_the_name_does_not_tell_it(office: Office) -> None:
    got = office.request("prompts/get", {"name": "notes__summary"})
    reference = {"type": "ref/prompt", "name": "notes__summary"}
    completed = office.request("completion/complete", {"ref": reference, "argument": {}})
    rows = {row[-1]: row[2] for row in office.cli("logs").rows}
    assert rows[got] == "notes/prompt:summary"
    assert rows[completed] == "notes/prompt:summary (completion/complete)"
    assert "called notes/prompt:summary (completion/complete): ok" in office.cli("why", completed).out


def test_why_of_an_unknown_call_exits_4(office: Office) -> None:
    assert office.cli("why", "38fqvwnhx1r00").status == 4


def test_policy_explain_asks_the_running_gateway_where_one_is_named(office: Office) -> None:
    """Only the gateway knows that the server calls its tool read-only."""
    done = office.cli("policy", "explain", "--as", "bob", "notes/read", "--url", office.url)
    assert done.status == 0
    assert "allowed by everybody-reads" in done.out
    unknown = office.cli("policy", "explain", "--as", "bob", "note/read", "--url", office.url)
    assert (unknown.status, "notes/read" in unknown.err) == (4, True)
    refused = office.cli("policy", "explain", "--as", "bob", "notes/read", "--url", office.url, token=BOB)
    assert refused.status == 5


def test_a_gateway_with_another_admin_url_is_asked_there(office: Office) -> None:
    done = office.cli("ls", "--url", "http://127.0.0.1:1", "--admin-url", office.admin, "--token", EVE)
    assert {row[0] for row in done.rows} == {"notes", "cellar", "gone"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("id_rsa", "cgo_" + "a" * 43), ("operator.token", "-----BEGIN PRIVATE KEY-----"), ("operator.token", "cgo_short")],
)
def test_a_listener_cannot_make_the_command_read_other_files(office: Office, name: str, content: str) -> None:
    from callgate.cli.remote import operator_token

    file = office.folder / f"loot-{abs(hash((name, content)))}" / name
    file.parent.mkdir()
    file.write_text(content)
    assert operator_token(str(file)) is None
    assert operator_token("operator.token") is None


def test_the_operators_token_is_read_from_the_file_that_the_gateway_names(office: Office) -> None:
    from callgate.cli.remote import operator_token

    assert operator_token(str(office.folder / "state" / "operator.token")) == office.token


def test_no_command_prints_a_traceback_when_its_reader_goes_away(office: Office) -> None:
    env = environment({"CALLGATE_URL": office.url})
    with subprocess.Popen(
        [sys.executable, "-m", "callgate", "logs", "-o", "jsonl"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert b"Traceback" not in said


def test_stdio_with_an_unknown_virtual_server_exits_4(office: Office) -> None:
    done = run("stdio", "--virtual-server", "raeder", folder=office.folder)
    assert done.status == 4
    assert "reader" in done.err

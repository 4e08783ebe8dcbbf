"""`callgate doctor` finds what is wrong, says the fix, and changes nothing."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.office import POLICY, Office, run

Found = dict[tuple[str, str], list[dict[str, str]]]


def look(folder: Path, config: str, status: int, **env: str) -> Found:
    """What doctor finds, by group and level."""
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    (folder / "callgate.yaml").write_text("data_dir: state\nlisten: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n" + config)
    done = run("doctor", "-o", "json", folder=folder, env=env)
    assert done.status == status, done
    found: Found = {}
    for each in json.loads(done.out):
        found.setdefault((each["group"], each["level"]), []).append(each)
    return found


def test_nothing_is_wrong_with_a_good_configuration(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    found = look(tmp_path, "policy: p.yaml\nservers: {s: {command: sh, env: {A: 'env:HOME'}}}\n", 0)
    assert not [key for key in found if key[1] == "problem"]
    assert ("policy", "ok") in found and ("clock", "ok") in found and ("server s", "ok") in found
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == []


def test_a_command_that_is_not_there_comes_with_the_nearest_or_how_to_get_it(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "weatherd").touch(mode=0o755)
    servers = "servers:\n  near: {command: wetherd}\n  uv: {command: uvx}\n  own: {command: ./servr.py}\n"
    (tmp_path / "server.py").touch()
    found = look(tmp_path, servers, 1, PATH=str(tools))
    assert "Did you mean `weatherd`?" in found["server near", "problem"][0]["fix"]
    assert "Install uv" in found["server uv", "problem"][0]["fix"]
    assert f"Did you mean `{tmp_path / 'server.py'}`?" in found["server own", "problem"][0]["fix"]


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    servers = "servers: {s: {command: sh, env: {A: 'env:CG_NOT_SET', B: 'file:nowhere', C: 'secret:pat'}}}\n"
    found = look(tmp_path, servers, 1)
    fixes = [each["fix"] for each in found["server s", "problem"]]
    assert any("export CG_NOT_SET" in fix for fix in fixes)
    assert any("export CALLGATE_SECRET_PAT" in fix for fix in fixes)
    assert any(fix.startswith("callgate secret set pat") for fix in fixes)
    assert any(str(tmp_path / "nowhere") in each["what"] for each in found["server s", "problem"])


def test_a_server_that_cannot_be_reached_and_one_that_can(tmp_path: Path, office: Office) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        servers = f"servers: {{a: {{url: 'http://127.0.0.1:{port}/mcp'}}, b: {{url: '{office.url}/mcp'}}}}\n"
        found = look(tmp_path, servers, 1)
    assert "connection refused" in found["server a", "problem"][0]["what"]
    assert ("server b", "ok") in found and ("server b", "problem") not in found


def test_ports_that_are_free_taken_or_callgates_own(tmp_path: Path, office: Office) -> None:
    mine = office.url.rpartition("/")[2]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "state").mkdir(mode=0o700)
        (tmp_path / "callgate.yaml").write_text(f"data_dir: state\nlisten: {mine}\nadmin_listen: 127.0.0.1:{port}\n")
        done = run("doctor", folder=tmp_path)
    assert done.status == 1
    assert f"✓ listen: callgate itself is running on {mine}" in done.out
    assert f"✗ admin_listen: another program uses 127.0.0.1:{port}" in done.out
    assert "--admin-port 0" in done.out


def test_mistakes_in_the_configuration_are_findings(tmp_path: Path) -> None:
    found = look(tmp_path, "sevrers: {}\nlog_level: loud\n", 1)
    said = [each["what"] for each in found["configuration", "problem"]]
    assert any("sevrers" in what and "callgate.yaml:4" in what for what in said)
    assert any("callgate.yaml:5" in what for what in said)
    assert ("installation", "ok") in found


def test_a_policy_whose_tests_fail(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY.replace("expect: deny, by: no-burning", "expect: allow"))
    found = look(tmp_path, "policy: p.yaml\n", 1)
    assert "expected allow, got deny" in found["policy", "problem"][0]["what"]


@pytest.mark.skipif(os.name != "posix", reason="about permissions of POSIX")
def test_state_that_others_can_read(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "operator.token").touch(mode=0o644)
    (tmp_path / "state").chmod(0o755)
    found = look(tmp_path, "", 1)
    assert "rm " in found["data directory", "problem"][0]["fix"]
    assert found["data directory", "warning"][0]["fix"] == f"chmod 700 {tmp_path / 'state'}"


def test_the_keys_of_an_issuer(tmp_path: Path, office: Office) -> None:
    (tmp_path / "keys.json").write_text('{"keys": [{"kty": "OKP"}]}')
    issuers = (
        "identity:\n  jwt:\n"
        "    - {issuer: https://here.example, audience: c, jwks_file: keys.json}\n"
        f"    - {{issuer: https://there.example, audience: c, jwks_uri: '{office.url}/healthz'}}\n"
        f"    - {{issuer: https://gone.example, audience: c, jwks_uri: '{office.url}/nothing'}}\n"
    )
    found = look(tmp_path, issuers, 1)
    assert any("here.example: 1 keys" in each["what"] for each in found["identity", "ok"])
    problems = " ".join(each["what"] for each in found["identity", "problem"])
    assert "holds no keys" in problems and "answered 404" in problems


def test_where_people_sign_in(tmp_path: Path) -> None:
    with _discovery() as issuer:
        providers = (
            "public_url: https://mcp.example.org\nidentity:\n  oauth: {}\n  providers:\n"
            f"    main: {{issuer: '{issuer}', client_id: callgate}}\n"
            f"    slash: {{issuer: '{issuer}/', client_id: callgate}}\n"
            f"    gone: {{issuer: '{issuer}/gone', client_id: callgate}}\n"
        )
        found = look(tmp_path, providers, 1)
    good = " ".join(each["what"] for each in found["identity", "ok"])
    assert f"main: people sign in at {issuer}" in good
    assert "must know the redirect URI https://mcp.example.org/oauth/callback" in good
    slash, gone = found["identity", "problem"]
    assert slash["what"].startswith("slash: ") and slash["fix"] == f"Write `issuer: {issuer}`."
    assert "answered 404" in gone["what"] and gone["fix"] == "Check `issuer`."


@contextmanager
def _discovery() -> Iterator[str]:
    """An identity provider of which there is only the discovery document."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.replace("//", "/") == "/.well-known/openid-configuration"
            body = json.dumps({"issuer": issuer}).encode()
            self.send_response(200 if known else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

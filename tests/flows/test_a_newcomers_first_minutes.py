"""The first minutes with callgate: an mcp.json that is there already, one command, and the first governed call."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from tests.fuzz.messages import dump, head, modern, post, routing
from tests.fuzz.raw import ask
from tests.gateway.stand import calling
from tests.gateway.test_up import until
from tests.processes import Running, python, ready
from tests.upstream.house import SCRIPT


def test_an_existing_mcp_json_becomes_a_governed_endpoint(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"notes": {"command": sys.executable, "args": ["-S", SCRIPT]}}}))
    command = python("-m", "callgate", "up", "-c", str(file), "--port", "0", "--admin-port", "0")
    with Running("callgate", command, tmp_path, env={"XDG_DATA_HOME": str(tmp_path / "share")}) as running:
        root = ready(running, r"http://[^\s/]+/mcp\b", 20).removesuffix("/mcp")
        address = "127.0.0.1", int(root.rpartition(":")[2])

        # It says that nothing is forbidden yet, and where to look.
        assert "no policy is configured" in running.err.read_text()

        # An agent lists and calls.
        message = modern("tools/list")
        listed = ask(address, post(address[1], dump(message), routing(message))).json["result"]["tools"]
        assert "notes__echo" in [tool["name"] for tool in listed]
        message = calling("notes__echo", {"text": "hello"})
        reply = ask(address, post(address[1], dump(message), routing(message)))
        assert reply.json["result"]["params"]["arguments"] == {"text": "hello"}

        # The call is in the log, under the id that came with the answer.
        found = ask(address, head("GET /healthz HTTP/1.1", [("Host", "127.0.0.1")])).json
        token = Path(found["operator_token_file"]).read_text().strip()
        admin = "127.0.0.1", int(found["admin"].rpartition(":")[2])
        id = reply.headers["callgate-call-id"]
        page = [("Host", "127.0.0.1"), ("Authorization", f"Bearer {token}")]
        until(lambda: ask(admin, head(f"GET /api/v1/calls/{id} HTTP/1.1", page)).status == 200)
        record = ask(admin, head(f"GET /api/v1/calls/{id} HTTP/1.1", page)).json
        assert (record["tool"], record["outcome"], record["subject"]) == ("echo", "ok", "anonymous")

        os.kill(running.pid, signal.SIGTERM)
        assert running.process.wait(10) == 0

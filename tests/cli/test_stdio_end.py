"""`callgate stdio` ends with its client, also while a server does not come up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.processes import environment

HANG = "import time; time.sleep(600)"


def test_the_end_of_stdin_is_noticed_while_a_server_hangs_at_start(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    config = tmp_path / "callgate.yaml"
    config.write_text(
        f"data_dir: ./state\nstartup_wait: 60\nservers:\n  hung: {{command: {sys.executable}, args: [-c, '{HANG}']}}\n"
    )
    command = [sys.executable, "-m", "callgate", "stdio", "-c", str(config)]
    begun = time.monotonic()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=40, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 30  # and not after the minute that `startup_wait` allows

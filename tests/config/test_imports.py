"""``import callgate.config`` is cheap: the heavy parts come when they are needed."""

from __future__ import annotations

import subprocess
import sys


def test_heavy_modules_are_imported_late() -> None:
    code = (
        "import sys, callgate.config as c\n"
        "heavy = {'yaml', 'watchfiles', 'asyncio', 'anyio', 'json', 'dataclasses', 'cryptography'} & set(sys.modules)\n"
        "print(sorted(heavy), callable(c.changes), callable(c.show), callable(c.schema), callable(c.load))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.strip() == "[] True True True True"

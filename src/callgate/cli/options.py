"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

GATEWAY = Group("Gateway")

Format = Literal["table", "json", "yaml", "jsonl"]
Output = Annotated[
    Format | None,
    Parameter(name=["--output", "-o"], help="table, json, yaml or jsonl; default: a table on a terminal, else TSV."),
]
Config = Annotated[
    Path | None, Parameter(name=["--config", "-c"], help="callgate.yaml, or the mcp.json of an AI client.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Which gateway a command talks to, and as whom."""

    url: Annotated[
        str, Parameter(env_var="CALLGATE_URL", group=GATEWAY, help="URL of the gateway, with or without `/mcp`.")
    ] = "http://127.0.0.1:8080"
    token: Annotated[
        str | None, Parameter(env_var="CALLGATE_TOKEN", group=GATEWAY, help="Your key or token for the gateway.")
    ] = None
    admin_url: Annotated[
        str | None,
        Parameter(
            env_var="CALLGATE_ADMIN_URL", group=GATEWAY, help="URL of the admin listener; a local gateway tells it."
        ),
    ] = None


HERE = Where()

"""The commands and how their errors end: data on stdout, everything else on stderr, one exit status per kind.

Every command is named here by a string and imported when it runs, so that `callgate --help` imports none.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from callgate import __version__
from callgate.errors import CallgateError, UsageError

DAILY = Group("Commands", sort_key=1)
NOUNS = Group("More", sort_key=2)

app = App(
    name="callgate",
    help="The one door between AI agents and tools.",
    version=__version__,
    version_flags=["--version"],
    group_commands=DAILY,
)
app["--help"].group = app["--version"].group = Group("Options", sort_key=3)

policy = App(name="policy", help="Test and explain policy files.", version_flags=[], group=NOUNS)
policy.command("callgate.cli.policy:run_tests", name="test", help="Run the tests that stand in the policy files.")
policy.command("callgate.cli.policy:explain", name="explain", help="Show what every rule says of a call.")
policy.command(
    "callgate.cli.policy_change:diff", name="diff", help="Show what would change for whom under another policy."
)
policy.command("callgate.cli.policy_change:replay", name="replay", help="Judge recorded calls by another policy.")
policy.command("callgate.cli.policy_change:coverage", name="coverage", help="Show which rules tests decide by.")

agent = App(name="agent", help="Show agents, make their secrets, end their tokens.", version_flags=[], group=NOUNS)
agent.command("callgate.cli.agent:ls", name="ls", help="List the agents.")
agent.command("callgate.cli.agent:show", name="show", help="Show one agent.")
agent.command(
    "callgate.cli.agent:secret", name="secret", help="Make a secret for an agent, and its line for the configuration."
)
agent.command("callgate.cli.agent:revoke", name="revoke", help="End all tokens with an agent in their chain.")

people = App(name="people", help="End what people hold.", version_flags=[], group=NOUNS)
people.command(
    "callgate.cli.agent:revoke_person", name="revoke", help="End everything that a person holds: tokens, sign-ins."
)

config = App(name="config", help="Show the settings and where they come from.", version_flags=[], group=NOUNS)
config.command("callgate.cli.settings:show", name="show", help="Show every setting and its value.")
config.command("callgate.cli.settings:schema", name="schema", help="Print the JSON Schema of callgate.yaml.")

catalog = App(name="catalog", help="Look at definitions that changed, and approve them.", version_flags=[], group=NOUNS)
catalog.command("callgate.cli.catalog:pending", name="pending", help="List what waits for an operator.")
catalog.command("callgate.cli.catalog:diff", name="diff", help="Show how a definition differs from the approved one.")
catalog.command("callgate.cli.catalog:approve", name="approve", help="Approve definitions.")
catalog.command("callgate.cli.catalog:reject", name="reject", help="Reject definitions.")

secret = App(name="secret", help="Keep the secrets that servers need.", version_flags=[], group=NOUNS)
secret.command("callgate.cli.secret:set_", name="set", help="Keep a value, read from stdin or asked for.")
secret.command("callgate.cli.secret:ls", name="ls", help="List the names, never the values.")
secret.command("callgate.cli.secret:rm", name="rm", help="Drop a secret.")
secret.command("callgate.cli.secret:rotate_key", name="rotate-key", help="Seal every secret with a new key.")

COMMANDS = {
    "up": ("callgate.cli.up:up", "Start the gateway."),
    "ls": ("callgate.cli.ls:ls", "List the servers; with a server, its tools."),
    "call": ("callgate.cli.call:call", "Call a tool through the gateway."),
    "login": ("callgate.cli.login:login", "Sign in at a gateway, with a browser or a code."),
    "logout": ("callgate.cli.login:logout", "Sign out."),
    "whoami": ("callgate.cli.login:whoami", "Show who you are at a gateway."),
    "logs": ("callgate.cli.logs:logs", "Show recorded calls."),
    "usage": ("callgate.cli.usage:usage", "Show what was used, and how much of the quotas."),
    "why": ("callgate.cli.why:why", "Explain why one call was allowed or denied."),
    "doctor": ("callgate.cli.doctor:doctor", "Say what is wrong here, and the exact fix."),
    "stdio": ("callgate.cli.stdio:stdio", "Serve one client over stdin and stdout."),
}
for order, (name, (where, says)) in enumerate(COMMANDS.items()):
    app.command(where, name=name, help=says, sort_key=order)
app.command(agent)
app.command(people)
app.command(policy)
app.command(catalog)
app.command(config)
app.command(secret)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status (1 is the command's to give, never an accident's)."""
    try:
        result = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return fail(usage(error, arguments))
    except CallgateError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        import traceback

        traceback.print_exc()
        print("error: this is a mistake in callgate itself; please report it with the lines above.", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


def fail(error: CallgateError) -> int:
    """Show an error; returns the exit status of its kind."""
    from callgate.cli.output import colours
    from callgate.config import render

    print(render(error, colour=colours(sys.stderr)), file=sys.stderr)
    return error.exit_code


def usage(error: CycloptsError, arguments: Sequence[str]) -> UsageError:
    """A mistake on the command line, with the nearest name where there is one."""
    message, _, near = " ".join(str(error).split()).partition(" Did you mean ")
    near = near.partition("? ")[0].rstrip("?")
    nouns = {
        "agent": " agent",
        "people": " people",
        "policy": " policy",
        "catalog": " catalog",
        "config": " config",
        "secret": " secret",
    }
    command = next((text for text in arguments if text in COMMANDS or text in nouns), "")
    if command == "secret":  # what was written there by mistake may be one
        message = re.sub(r"=.*", "=…", message)
    more = f"`callgate{f' {command}' if command else ''} --help` says more."
    return UsageError(message, hint=f"Did you mean {near}?" if near else more)

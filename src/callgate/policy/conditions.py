"""Conditions: CEL behind an interface of our own.

The library is imported when the first ``when`` is compiled, never before. Fields of ``caller``, ``tool`` and
``request`` are declared one by one, as qualified variables, so that a misspelt field is found at load.

The library hands out errors as ordinary values that are true in Python, and raises for others. Only a result whose
type is BOOL counts here; everything else becomes a ``Fault``, which never allows anything (rules POL-2, POL-3).
What it is fed is bounded, because converting large or deeply nested values is slow or crashes (POL-12).
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Literal

import msgspec

from callgate.errors import nearest
from callgate.types import Call, Front, Principal, Tool

MAX_ARGUMENTS = 64 * 1024
"""Encoded size in bytes up to which arguments (and claims) are looked at."""
MAX_DEPTH = 128
"""Nesting up to which arguments (and claims) are looked at; far below what the CEL library survives."""

Root = Literal["caller", "tool", "request", "args", "now"]
NOBODY = Principal(subject="", key="")
NO_TOOL = Tool(server="", name="", exposed="", definition=b"")
NO_FRONT = Front()
EPOCH = datetime.fromtimestamp(0, UTC)


class Fault(msgspec.Struct, frozen=True):
    """A condition that could not be decided, and why; never quotes values of the call."""

    why: str


class ConditionError(Exception):
    """A condition that does not compile; 1-based ``line`` and ``column`` inside its text."""

    def __init__(self, message: str, line: int = 1, column: int = 1, length: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.length, self.hint = message, line, column, length, hint


class Unavailable(Exception):
    """The CEL library is not installed."""


class Unfit(Exception):
    """A value that must not be shown to CEL; the message says why."""


class Lost(dict[str, Any]):
    """Arguments that were too large to be kept, of a call that was judged when it was made. Rules over its result that
    look at them are in doubt.
    """


class Inputs:
    """What the conditions of one decision look at."""

    __slots__ = ("_unfit", "arguments", "front", "limit", "now", "tool", "who")

    def __init__(
        self, who: Principal = NOBODY, tool: Tool = NO_TOOL, front: Front = NO_FRONT, *,
        arguments: Mapping[str, Any] | None = None, now: datetime = EPOCH, limit: int = MAX_ARGUMENTS,
    ) -> None:  # fmt: skip
        self.who, self.tool, self.front = who, tool, front
        self.arguments: Mapping[str, Any] = {} if arguments is None else arguments
        self.now, self.limit = now, limit
        self._unfit: str | None = None  # None: not looked at yet

    @classmethod
    def of(cls, call: Call, now: datetime, limit: int = MAX_ARGUMENTS) -> Inputs:
        return cls(call.principal, call.tool, call.front, arguments=call.arguments, now=now, limit=limit)

    def doubting(self) -> Inputs:
        """The same, where arguments that are lost are not taken for none."""
        if isinstance(self.arguments, Lost):
            self._unfit = "the arguments are not known any more"
        return self

    def args(self) -> dict[str, Any]:
        """The arguments, after a check that they may be looked at (made once for all rules)."""
        arguments = self.arguments if isinstance(self.arguments, dict) else dict(self.arguments)
        if self._unfit is None:
            self._unfit = _flaw("the arguments", arguments, self.limit)
        if self._unfit:
            raise Unfit(self._unfit)
        return arguments

    def claims(self) -> dict[str, Any]:
        claims = dict(self.who.claims)
        if flaw := _flaw("the claims of the caller", claims, self.limit):
            raise Unfit(flaw)
        return claims

    def chain(self) -> list[dict[str, Any]]:
        return [
            {"subject": actor.subject, "issuer": actor.issuer, "roles": list(actor.roles)} for actor in self.who.chain
        ]


class Variable(msgspec.Struct, frozen=True):
    """One name that conditions may use: its CEL type, where it comes from, and how it is read."""

    root: Root
    type: str
    read: Callable[[Inputs], Any]


VARIABLES: Mapping[str, Variable] = {
    "caller.subject": Variable("caller", "string", attrgetter("who.subject")),
    "caller.issuer": Variable("caller", "string", attrgetter("who.issuer")),
    "caller.tenant": Variable("caller", "string", attrgetter("who.tenant")),
    "caller.via": Variable("caller", "string", attrgetter("who.via")),
    "caller.roles": Variable("caller", "list(string)", lambda inputs: list(inputs.who.roles)),
    "caller.groups": Variable("caller", "list(string)", lambda inputs: list(inputs.who.groups)),
    "caller.claims": Variable("caller", "map(string, dyn)", Inputs.claims),
    "chain": Variable("caller", "list(map(string, dyn))", Inputs.chain),
    "tool.server": Variable("tool", "string", attrgetter("tool.server")),
    "tool.name": Variable("tool", "string", attrgetter("tool.name")),
    "tool.description": Variable("tool", "string", attrgetter("tool.description")),
    "tool.readOnly": Variable("tool", "bool", attrgetter("tool.read_only")),
    "tool.destructive": Variable("tool", "bool", attrgetter("tool.destructive")),
    "tool.idempotent": Variable("tool", "bool", attrgetter("tool.idempotent")),
    "tool.openWorld": Variable("tool", "bool", attrgetter("tool.open_world")),
    "tool.operation": Variable("tool", "string", attrgetter("tool.operation")),
    "request.door": Variable("request", "string", attrgetter("front.door")),
    "request.version": Variable("request", "string", attrgetter("front.version")),
    "request.era": Variable("request", "string", attrgetter("front.era")),
    "request.transport": Variable("request", "string", attrgetter("front.transport")),
    "args": Variable("args", "map(string, dyn)", Inputs.args),
    "now": Variable("now", "timestamp", attrgetter("now")),
}


class Condition:
    """A compiled ``when``. ``needs`` are the variables it uses, ``roots`` where they come from."""

    __slots__ = ("_bool", "_program", "_reads", "needs", "roots", "text")

    def __init__(self, text: str, program: Any, needs: frozenset[str]) -> None:
        self.text = text
        self.needs = needs
        self.roots: frozenset[Root] = frozenset(VARIABLES[name].root for name in needs)
        self._program = program
        self._bool = _library().Type.BOOL
        self._reads = tuple((name, VARIABLES[name].read) for name in sorted(needs))

    def holds(self, inputs: Inputs) -> bool | Fault:
        """``True`` or ``False`` if CEL said exactly that, else a ``Fault``."""
        try:
            result = self._program.eval(data={name: read(inputs) for name, read in self._reads})
            if result.type() == self._bool:
                return result.value() is True
            said = str(result.value()) if result.type().name() == "ERROR" else ""
        except Unfit as unfit:
            return Fault(str(unfit))
        except Exception as error:  # whatever a condition does, it must end in a decision
            said = str(error)
        return Fault(_reason(said, self.text) if said else "it gave neither true nor false")


def compile_condition(text: str) -> Condition:
    """Compile and type-check one expression.

    Raises ``ConditionError`` (with the place inside the text) and ``Unavailable``.
    """
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        raise _complaint(str(error), text) from None
    kind = program.return_type().name()
    if kind not in ("BOOL", "DYN"):
        hint = "compare it with something: `==`, `in`, `>`"
        raise ConditionError(f"it gives {kind.lower()}, not true or false", length=len(text), hint=hint)
    return Condition(text, program, _needs(text))


@functools.cache
def _library() -> Any:
    try:
        return importlib.import_module("cel_expr_python.cel")
    except ImportError:
        raise Unavailable from None


@functools.cache
def _environment(without: str = "") -> Any:
    """The names and functions that conditions may use; ``without`` leaves one name out."""
    cel = _library()
    strings = importlib.import_module("cel_expr_python.ext.ext_strings").ExtStrings()
    optional = importlib.import_module("cel_expr_python.ext.ext_optional").ExtOptional()
    types = _types(cel.Type)
    variables = {name: types[variable.type] for name, variable in VARIABLES.items() if name != without}
    return cel.NewEnv(variables=variables, extensions=[strings, optional])


def _types(type_: Any) -> Mapping[str, Any]:
    record = type_.Map(type_.STRING, type_.DYN)
    return {
        "string": type_.STRING,
        "bool": type_.BOOL,
        "timestamp": type_.TIMESTAMP,
        "list(string)": type_.List(type_.STRING),
        "map(string, dyn)": record,
        "list(map(string, dyn))": type_.List(record),
    }


def _needs(text: str) -> frozenset[str]:
    """The variables without which ``text`` would not compile: exactly those that it uses."""
    mentioned = (name for name in VARIABLES if name.rpartition(".")[2] in text)
    return frozenset(name for name in mentioned if not _compiles(text, name))


def _compiles(text: str, without: str) -> bool:
    try:
        _environment(without).compile(text)
    except RuntimeError:
        return False
    return True


def _complaint(said: str, text: str) -> ConditionError:
    """``INVALID_ARGUMENT: ERROR: <input>:1:5: undeclared reference to 'tool.x' (in container '')`` made readable."""
    found = re.search(r"<input>:(\d+):(\d+): (.*)", said)
    if found is None:
        return ConditionError(said.partition("\n")[0], length=len(text))
    line, column, message = int(found[1]), int(found[2]), found[3]
    message = message.replace(" (in container '')", "").replace(" [INVALID_ARGUMENT]", "")
    message = re.sub(r",? expecting \{.*", "", message)
    message = re.sub(r"overload for '([^']*)'", lambda name: f"overload for `{_operator(name[1])}`", message)
    unknown = re.match(r"undeclared reference to '([^']+)'", message)
    if unknown is None:
        return ConditionError(message, line, column)
    name = unknown[1]
    source = text.split("\n")[line - 1] if line <= text.count("\n") + 1 else ""
    start = source.find(name)
    if start >= 0:
        column = start + 1
    return ConditionError(f"`{name}` is not known here", line, column, len(name), _known(name))


def _operator(name: str) -> str:
    """``_+_`` → ``+``; functions keep their names."""
    return name if name.isidentifier() else name.replace("_", "").removeprefix("@")


def _known(name: str) -> str:
    if found := nearest(name, VARIABLES):
        return f"did you mean `{found}`?"
    root = name.partition(".")[0]
    fields = [variable for variable in VARIABLES if variable.partition(".")[0] == root]
    return "known names: " + ", ".join(f"`{variable}`" for variable in fields or VARIABLES)


def _reason(said: str, text: str) -> str:
    """An error of the library without values of the call: what it quotes stays only if the condition quotes it too."""
    message = re.sub(r"^[A-Z_]+: ", "", said.partition("\n")[0])
    message = re.sub(r" ?\[[A-Z_]+\]$", "", message)
    head, _, tail = message.partition(":")
    head = re.sub(r"'.*'|\".*\"", "…", head).strip()
    name = tail.strip().strip('"')
    if head == "Key not found in map" and re.fullmatch(r"\w+", name) and re.search(rf"\b{name}\b", text):
        return f"there is no `{name}`"
    if head == "No matching overloads found":
        return "values of types that do not go together"
    return head[:120]


def _flaw(what: str, value: Any, limit: int) -> str:
    """What keeps ``value`` from being JSON of bounded size and depth, or ``""``."""
    try:
        encoded = msgspec.json.encode(value)
    except RecursionError:
        return f"{what} are nested too deeply"
    except Exception:  # whatever it is that cannot be encoded
        return f"{what} are not JSON"
    if len(encoded) > limit:
        return f"{what} are larger than {limit} bytes"
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _deep(value):
        return f"{what} are nested too deeply"
    return ""


def _deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for part in level
            if isinstance(part, (dict, list))
            for child in (part.values() if isinstance(part, dict) else part)
        ]
    return bool(level)

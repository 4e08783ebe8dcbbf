"""Find the layers, lay them over each other, check what came out.

Highest first: flags, ``CALLGATE_*``, the file given (or ``./callgate.yaml``), the user's file, the system's file,
defaults. Every value keeps its origin.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import msgspec

from callgate.errors import ConfigError, Place

from .checks import check
from .clients import adapt
from .decode import decode_node, dotted, fields, is_struct, kind, split
from .document import Document, missing, read_document
from .layers import Layer, from_environment, from_flags, merge_files, merge_values, node_at
from .model import Settings
from .model_policy import PolicyLayer
from .node import Node, Path_, Source, Span, Step, together

FILE_NAME = "callgate.yaml"
SYSTEM_FILE = Path("/etc/callgate") / FILE_NAME


ADDRESS_FLAGS = ("host", "port", "admin_port")


class Origin(msgspec.Struct, frozen=True):
    """Which layer a value comes from, and where it stands there (``None`` for defaults)."""

    layer: Layer
    place: Place | None = None

    def __str__(self) -> str:
        if self.place is None:
            return self.layer
        if self.layer in ("flag", "environment"):
            return f"{self.layer} {self.place.text.partition('=')[0]}"
        return f"{self.place.file}:{self.place.line}"


class Loaded(msgspec.Struct, frozen=True):
    """The settings and where they come from.

    ``origins`` is keyed by dotted name, ``base`` is the folder that relative paths resolve against, ``files`` are
    all files worth watching (some may not exist yet), ``policy`` the policy documents (an inline one included;
    empty without a policy), ``notes`` what a user should be told about a client's file.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    base: Path
    data_dir: Path
    files: tuple[Path, ...]
    policy: tuple[Document, ...] = ()
    notes: tuple[str, ...] = ()


def load(
    file: Path | None,
    *,
    flags: Mapping[str, Any] = MappingProxyType({}),
    env: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    system: Path = SYSTEM_FILE,
) -> Loaded:
    """Load the settings; ``flags`` are dotted keys such as ``{"audit.durability": "strict"}``.

    The flags ``host``, ``port`` and ``admin_port`` change a part of ``listen`` and ``admin_listen``.
    ``file`` may also be the ``mcp.json`` of an AI client.
    Raises ``ConfigError`` with every problem that could be found.
    """
    return _Loading(file, env, (cwd or Path.cwd()).absolute(), system).load(flags)


class _Loading:
    """One run of ``load``."""

    def __init__(self, file: Path | None, env: Mapping[str, str], cwd: Path, system: Path) -> None:
        self.file = file
        self.env = env
        self.cwd = cwd
        self.system = system
        self.base = cwd
        self.files: list[Path] = []
        self.notes: list[str] = []
        self.problems: list[ConfigError] = []
        self.text = ""

    def load(self, flags: Mapping[str, Any]) -> Loaded:
        root = self.merged(flags)
        document = Document(root, self.text)
        settings = self.settings(root)
        self.problems.extend(check(settings, document))
        policy = tuple(self.policy(settings, document))
        data_dir = self.data_dir(settings, document)
        self.stop_if_wrong()
        found = leaves(settings, lambda path: node_at(root, path) is not None)
        origins = MappingProxyType({dotted(path): _origin(root, path) for path, _ in found})
        return Loaded(settings, origins, self.base, data_dir, tuple(self.files), policy, tuple(self.notes))

    def settings(self, root: Node) -> Settings:
        try:
            found = cast(Settings, decode_node(root, Settings))
        except ConfigError as error:
            self.note(error)
            raise self.whole_error() from None
        self.stop_if_wrong()
        return found

    def whole_error(self) -> ConfigError:
        return together(self.problems, str(self.file or FILE_NAME))

    def merged(self, flags: Mapping[str, Any]) -> Node:
        root = Node("map", Source(str(self.file or FILE_NAME), ""), Span(0, 0))
        for layer, path, shown in self.candidates():
            node = self.read(layer, path, shown)
            if node is not None:
                root = merge_files(root, node)
        root = merge_values(root, from_environment(self.env, str(self.cwd), self.problems))
        plain = {name: value for name, value in flags.items() if name not in ADDRESS_FLAGS}
        root = merge_values(root, from_flags(plain, str(self.cwd)))
        return _resolved(merge_values(root, from_flags(_listen_flags(root, flags), str(self.cwd))), self.base)

    def candidates(self) -> Iterator[tuple[Layer, Path, Path]]:
        """Layer, path and the name to show, lowest layer first."""
        yield "system file", self.system, self.system
        user = _home(self.env, "XDG_CONFIG_HOME", ".config") / "callgate" / FILE_NAME
        yield "user file", user, user
        shown = Path(FILE_NAME) if self.file is None else self.file.expanduser()
        yield "file", self.cwd / shown, shown

    def read(self, layer: Layer, path: Path, shown: Path) -> Node | None:
        own = layer == "file"
        if not path.exists():
            if own and self.file is not None:
                self.problems.append(missing(path, name=str(shown)))
            if own:
                self.files.append(path)
            return None
        self.files.append(path)
        if own or self.base == self.cwd:
            self.base = path.parent.absolute()
        try:
            document = read_document(path, str(shown))
            root = adapt(document.root, self.env, self.notes)
        except ConfigError as error:
            self.note(error)
            return None
        self.text = document.text
        root.source.layer, root.source.folder = layer, str(path.parent.absolute())
        if root.kind == "map" or (root.kind == "scalar" and root.data is None):
            return root
        self.problems.append(
            root.source.wrong("the file must be a mapping of settings", root.span, "begin with `servers:`")
        )
        return None

    def note(self, error: ConfigError) -> None:
        self.problems.extend(error.problems or (error,))

    def stop_if_wrong(self) -> None:
        if self.problems:
            raise self.whole_error()

    def policy(self, settings: Settings, document: Document) -> Iterator[Document]:
        value = settings.policy
        if isinstance(value, dict):
            yield document.at(("policy",))
            return
        paths: list[tuple[str | PolicyLayer, Path_]] = [(value, ("policy",))] if isinstance(value, str) else []
        if isinstance(value, tuple):
            paths = [(each, ("policy", at)) for at, each in enumerate(value)]
        for each, at in paths:
            path, narrows = (Path(each), False) if isinstance(each, str) else (Path(each.file), each.narrows)
            self.files.append(path)
            if not path.exists():
                self.problems.append(missing(path, document.place(at), "policy file", self.shown(path)))
                continue
            try:
                read = read_document(path, self.shown(path))
                yield read.narrowing() if narrows else read
            except ConfigError as error:
                self.note(error)

    def shown(self, path: Path) -> str:
        return str(path.relative_to(self.cwd)) if path.is_relative_to(self.cwd) else str(path)

    def data_dir(self, settings: Settings, document: Document) -> Path:
        if settings.data_dir is None:
            return self.default_data_dir()
        path, place = Path(settings.data_dir), document.place(("data_dir",))
        if not path.exists():
            self.problems.append(
                ConfigError(f"data_dir {path} does not exist", hint=f"create it: `mkdir -p {path}`", place=place)
            )
        elif not path.is_dir():
            self.problems.append(ConfigError(f"data_dir {path} is not a folder", hint="name a folder", place=place))
        return path

    def default_data_dir(self) -> Path:
        path = _home(self.env, "XDG_DATA_HOME", ".local/share") / "callgate"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            hint = "set `data_dir` to a folder that you may write to"
            self.problems.append(ConfigError(f"{path} cannot be created: {error.strerror}", hint=hint))
        return path


def _listen_flags(root: Node, flags: Mapping[str, Any]) -> dict[str, str]:
    """``host``, ``port`` and ``admin_port`` as whole addresses; the other part stays what the layers below say."""
    found = {}
    for key, host, port in (
        ("listen", flags.get("host"), flags.get("port")),
        ("admin_listen", None, flags.get("admin_port")),
    ):
        if host is None and port is None:
            continue
        node = root.items.get(key)
        text = node.raw if node is not None else str(getattr(Settings(), key))
        own_host, _, own_port = text.rpartition(":")
        host = own_host if host is None else f"[{host}]" if ":" in host and not host.startswith("[") else host
        found[key] = f"{host}:{own_port if port is None else port}"
    return found


def _home(env: Mapping[str, str], variable: str, below: str) -> Path:
    """A folder of the XDG base directory specification; relative values are to be ignored."""
    named = Path(env.get(variable) or "")
    if named.is_absolute():
        return named
    return Path(env.get("HOME") or Path.home()) / below


_PATHS = ("data_dir", "policy")
_SERVER_PATHS = ("cwd", "ca_file")
_SECRET_PATHS: tuple[tuple[Path_, str], ...] = (
    (("secrets",), "key_file"), (("secrets", "vault"), "ca_file"), (("secrets", "vault"), "jwt_file"),
    (("secrets", "kubernetes"), "ca_file"), (("secrets", "kubernetes"), "token_file"),
    (("secrets", "onepassword"), "ca_file"),
)  # fmt: skip


def _resolved(root: Node, base: Path) -> Node:
    """``root`` with its paths made absolute, each against the folder of the file that it stands in."""
    for key in _PATHS:
        _resolve(root, key, base)
    servers = root.items.get("servers")
    for _, server in servers.fields() if servers is not None else ():
        for key in _SERVER_PATHS:
            _resolve(server, key, base)
        command = server.items.get("command")
        if command is not None and Path(command.source.folder or base) != base and command.raw.startswith((".", "~")):
            _resolve(server, "command", base)  # another layer's `./server.py`
    for part, key in _SECRET_PATHS:
        if (section := node_at(root, part)) is not None:
            _resolve(section, key, base)
    issuers = node_at(root, ("identity", "jwt"))
    for _, issuer in issuers.fields() if issuers is not None else ():
        _resolve(issuer, "jwks_file", base)
    federation = node_at(root, ("identity", "federation"))
    for _, issuer in federation.fields() if federation is not None else ():
        for key in ("jwks_file", "ca_file", "token_file"):
            _resolve(issuer, key, base)
    return root


def _resolve(parent: Node, key: Step, base: Path) -> None:
    node = parent.items.get(key)
    if node is None or node.kind == "map" or (node.kind == "scalar" and not node.raw):
        return
    if node.kind == "list":
        for at, entry in node.items.items():
            if entry.kind == "map":  # a layer of the policy
                _resolve(entry, "file", base)
            else:
                _resolve(node, at, base)
        return
    try:
        path = str(Path(os.path.normpath(Path(node.source.folder or base) / Path(node.raw).expanduser())))
    except RuntimeError:  # `~someone` who does not exist
        return
    parent.items[key] = Node("scalar", node.source, node.span, path, path)


def leaves(value: Any, given: Callable[[Path_], bool], path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every setting with its path; of single servers only what was ``given``."""
    type_: Any = type(value)
    for key, field in fields(type_).items():
        found, at = getattr(value, field.name), (*path, key)
        bare = split(field.type)[0]
        if is_struct(bare):
            yield from leaves(found, given, at)
        elif kind(bare) == "map" and any(is_struct(split(part)[0]) for part in getattr(bare, "__args__", ())):
            for name, entry in found.items():
                yield from (leaf for leaf in leaves(entry, given, (*at, name)) if given(leaf[0]))
        else:
            yield at, found


def _origin(root: Node, path: Path_) -> Origin:
    node = node_at(root, path)
    if node is None or (node.kind == "scalar" and node.data is None):
        return Origin("default")
    return Origin(cast(Layer, node.source.layer or "file"), node.place())

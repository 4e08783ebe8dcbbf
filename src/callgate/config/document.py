"""Documents: YAML and JSON files whose every value can be pointed at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, cast

from callgate.errors import ConfigError, Place, nearest

from .decode import decode_node
from .json_text import parse_json
from .node import Node, Path_, Source, Span
from .yaml_text import parse_yaml

T = TypeVar("T")

MAX_FILE = 8 * 1024 * 1024


class Document:
    """A parsed file, or the part of one.

    ``data`` is the content as dicts, lists and scalars; ``file`` the name for messages; ``text`` the whole text
    of the file. ``narrows``: a policy that can only take away from the others.
    """

    __slots__ = ("_root", "data", "file", "narrows", "text")

    def __init__(self, root: Node, text: str, *, narrows: bool = False) -> None:
        self._root = root
        self.narrows = narrows
        self.data: Any = root.plain()
        self.file = root.source.name
        self.text = text

    @property
    def root(self) -> Node:
        return self._root

    def place(self, path: Path_, *, key: bool = False) -> Place:
        """Where the value at ``path`` stands (with ``key=True``: its key).

        A path that leads nowhere gives the place of its deepest part that exists.
        """
        node = self._root
        place = node.place()
        for at, step in enumerate(path):
            child = node.items.get(step)
            if child is None:
                return place
            last = at == len(path) - 1
            place = node.key_place(step) if isinstance(step, str) and (key or not last) else child.place()
            node = child
        return place

    def narrowing(self) -> Document:
        """The same document as a policy that can only take away."""
        return Document(self._root, self.text, narrows=True)

    def at(self, path: Path_) -> Document:
        """The part of this document at ``path``; its places still point into the whole file.

        Raises ``KeyError`` when there is nothing at ``path``.
        """
        return Document(self._find(path), self.text)

    def wrong(self, message: str, path: Path_ = (), *, hint: str = "", key: bool = False) -> ConfigError:
        """A ``ConfigError`` that points at ``path``."""
        return ConfigError(message, hint=hint, place=self.place(path, key=key))

    def _find(self, path: Path_) -> Node:
        node = self._root
        for step in path:
            node = node.items[step]
        return node


def parse_document(text: str, file: str) -> Document:
    """Parse YAML, or JSON when the name of the file says so.

    Raises ``ConfigError`` whose ``problems`` are all mistakes found.

    >>> parse_document("servers: {time: {command: uvx}}", "callgate.yaml").place(("servers", "time")).column
    17
    """
    text = text.removeprefix("\ufeff")
    source = Source(file, text)
    if file.lower().endswith((".json", ".jsonc")):
        return Document(parse_json(text, source), text)
    return Document(parse_yaml(text, source), text)


def read_document(path: Path, name: str = "") -> Document:
    """Read and parse a file; ``name`` is what messages call it (default: the path).

    Raises ``ConfigError`` when it cannot be read (with the nearest file name of its folder) or parsed.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise missing(path) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a file", hint="name the file inside it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path} cannot be read: {reason}", hint="check its permissions") from None
    if len(content) > MAX_FILE:
        raise ConfigError(f"{path} is larger than {MAX_FILE // 2**20} MiB", hint="is it the right file?")
    return parse_document(_text(content, name or str(path)), name or str(path))


def missing(path: Path, place: Place | None = None, what: str = "file", name: str = "") -> ConfigError:
    """The error for a file or folder that does not exist, with the nearest name in its folder."""
    return ConfigError(f"{what} {name or path} does not exist", hint=_near(path, name), place=place)


def _near(path: Path, name: str) -> str:
    folder = path.parent
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return f"the folder {folder} does not exist either"
    if found := nearest(path.name, names):
        return f"did you mean `{Path(name or path).parent / found}`?"
    return f"create it, or correct the path (looked in {folder.absolute()})"


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        source = Source(name, before)
        span = Span(len(source.lines) - 1, len(source.lines[-1]))
        raise source.wrong("the file is not UTF-8 text", span, "save it as UTF-8") from None


def decode(document: Document, type_: type[T], at: Path_ = ()) -> T:
    """Decode the part of ``document`` at ``at`` as ``type_`` (anything that msgspec can convert to).

    Besides what msgspec does: ``Seconds`` and ``Bytes`` may be written ``30s`` and ``1MiB``, a plain number where
    text is wanted is taken as it was written, an empty section counts as absent.
    Raises ``ConfigError`` whose ``problems`` are all mistakes, each with its place and the nearest valid name.
    """
    return cast(T, decode_node(document._find(at), type_, at))

"""What must not be used again, or no longer: assertions that were seen, tokens that were revoked.

Each is an empty-handed file, named by a digest, whose text says until when it counts. So every process over one data
directory knows of it, and a restart forgets nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

log = logging.getLogger("callgate.identity")

#: Assertions of one agent that count at the same time: what one sends must not shut the others out.
MOST = 100_000
SWEEP = 60.0
POLL = 1.0
#: How long a mark counts that is no mark yet, or was never finished (seconds).
UNREADABLE = 3700.0
#: A folder changed so recently may change again without another time stamp (seconds).
FRESH = 2.0
File = tuple[int, int]


def _name(what: str) -> str:
    return hashlib.sha256(what.encode()).hexdigest()


class Marks:
    """The marks of one folder. A file that was read before is not read again; one that is replaced is another file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[File, float, float]] = {}

    def current(self, now: float) -> dict[str, tuple[float, float]]:
        """When each mark was made and until when it counts; those that no longer count are deleted."""
        known: dict[str, tuple[File, float, float]] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                    before, file = self._known.get(entry.name), _file(entry)
                    mark = before if before is not None and before[0] == file else (file, *_read(entry))
                    if mark[2] <= now:
                        Path(entry.path).unlink()
                    else:
                        known[entry.name] = mark
        # A mark that could not be read may only have been half written: it is read again.
        self._known = {name: mark for name, mark in known.items() if mark[1] >= 0}
        return {name: mark[1:] for name, mark in known.items() if not name.startswith(".")}


def _file(entry: os.DirEntry[str]) -> File:
    """Which file it is: its number alone may have been that of an earlier one, which was deleted meanwhile."""
    found = entry.stat()
    return entry.inode(), found.st_mtime_ns


def _read(entry: os.DirEntry[str]) -> tuple[float, float]:
    """When the mark was made (negative where that cannot be read) and until when it counts."""
    try:
        until, _, made = Path(entry.path).read_text(encoding="ascii").partition(" ")
        return float(made or 0), float(until)
    except ValueError:
        return -1.0, entry.stat().st_mtime + UNREADABLE


class Seen:
    """Names that an owner may take once. Touches the disk: fit for a thread."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._swept = float("-inf")
        self._marks = Marks(folder)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, owner: str, what: str, until: float) -> bool:
        """Whether ``owner`` did not take ``what`` before. Also ``False`` where there is no room to remember it."""
        whose = _name(owner)[:16]
        with self._lock:
            self._sweep()
            if self._counts[whose] >= MOST:
                return False
            try:
                path = self._folder / f"{whose}-{_name(what)}"
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                return False
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"{until:.0f}")
            self._counts[whose] += 1
            return True

    def has(self, owner: str, what: str) -> bool:
        """Whether ``owner`` took ``what`` before."""
        return (self._folder / f"{_name(owner)[:16]}-{_name(what)}").exists()

    def _sweep(self) -> None:
        now = self._clock()
        if 0 <= now - self._swept < SWEEP:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._swept = now
        self._counts = Counter(name.partition("-")[0] for name in self._marks.current(now))


class Revocations:
    """Revoked token ids, and subjects whose tokens up to some moment are revoked. ``generation`` counts changes."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.generation = 0
        self._folder = folder
        self._clock = clock
        self._files = Marks(folder)
        self._marks: dict[str, tuple[float, float]] = {}
        self._changed = -1
        self._polled = float("-inf")
        self._lock = threading.Lock()
        self._looked = False
        self._looking: threading.Thread | None = None

    def add(self, what: str, until: float) -> None:
        """Revoke ``what`` as of now. Touches the disk. A failure to write is raised, and counts in this process."""
        now = self._clock()
        name = _name(what)
        with self._lock:
            self._marks = {**self._marks, name: (now, until)}
            self.generation += 1
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = self._folder / f".{name}.{os.getpid()}"
            draft.write_text(f"{until:.0f} {now:.3f}", encoding="ascii")
            draft.replace(self._folder / name)

    def poll(self) -> int:
        """The generation, after a look for what other processes revoked (begun at most once a second).

        Calls ask this: but for the first time, another thread reads the files.
        """
        now = self._clock()
        if not 0 <= now - self._polled < POLL:
            self._polled = now
            if not self._looked:
                self.look()
            elif self._stamp() != self._changed and (self._looking is None or not self._looking.is_alive()):
                self._looking = threading.Thread(target=self.look, name="revocations", daemon=True)
                self._looking.start()
        return self.generation

    def covers(self, ids: Iterable[str], subjects: Iterable[str], issued: float) -> bool:
        """Whether one of the token ids is revoked, or one of the subjects as of a later moment than ``issued``."""
        marks = self._marks
        if not marks:
            return False
        if any(_name(f"jti:{each}") in marks for each in ids):
            return True
        moments = (marks.get(_name(f"sub:{each}")) for each in subjects)
        return any(moment is not None and issued <= moment[0] for moment in moments)

    def look(self) -> None:
        """Read what all processes over the folder revoked. Touches the disk."""
        with self._lock:
            now, changed = self._clock(), self._stamp()
            self._looked = True
            if changed is None or changed == self._changed:
                return
            try:
                found = self._files.current(now)
            except OSError as error:  # what is known counts; the next look is in a second
                log.warning("the revocations in %s could not be read: %s", self._folder, error.strerror)
                return
            if any(self._marks.get(name) != mark for name, mark in found.items()):
                self.generation += 1
            self._marks = {name: mark for name, mark in self._marks.items() if mark[1] > now} | found
            self._changed = changed if abs(now - changed / 1e9) > FRESH else -1

    def _stamp(self) -> int | None:
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return None

"""A secret value that nobody prints by accident (rule SEC-2)."""

from __future__ import annotations

from typing import NoReturn

SHOWN = "***"


class Secret:
    """A value and its version, which stores name in ways of their own. Only ``reveal`` gives the value: text, formats
    and copies of any kind do not.
    """

    __slots__ = ("__value", "version")

    def __init__(self, value: str, version: int | str = 0) -> None:
        self.__value = value
        self.version = version

    def reveal(self) -> str:
        return self.__value

    def __repr__(self) -> str:
        return SHOWN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(SHOWN, spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")

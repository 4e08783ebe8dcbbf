"""The contract on insides finds an import past a room's front door."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest

from checks.insides import InsidesContract

FILES = {
    "__init__": "",
    "model/__init__": "",
    "model/tree": "",
    "policy/__init__": "from .compile import build\nfrom .settle import settle\n__all__ = ['build', 'settle']",
    "policy/settle": "def settle(): ...",
    "policy/compile": "build = 1",
}


def broken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, visitor: str, opened: tuple[str, ...] = ()
) -> list[str]:
    for name, text in {**FILES, "face/__init__": "", "face/pages": visitor.format(p=package)}.items():
        path = folder / package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(folder)
    options = {"package": package, "open_modules": [f"{package}.{name}" for name in opened]}
    contract = InsidesContract("insides", {}, options)
    checked = contract.check(grimp.build_graph(package, cache_dir=None), verbose=False)
    lines: list[str] = checked.metadata["broken"]
    assert checked.kept == (not lines)
    return lines


def test_the_front_door_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken(tmp_path, monkeypatch, "house_a", "from {p}.policy import build") == []


def test_an_inside_is_closed_also_to_late_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = broken(tmp_path, monkeypatch, "house_b", "def show():\n    from {p}.policy.compile import build")
    assert line == "house_b.face.pages:2 imports house_b.policy.compile; import what house_b.policy names instead"


def test_an_offer_may_be_called_like_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken(tmp_path, monkeypatch, "house_d", "from {p}.policy import settle") == []
    (line,) = broken(tmp_path, monkeypatch, "house_e", "from {p}.policy import compile")
    assert line.startswith("house_e.face.pages:1 imports house_e.policy.compile")


def test_an_opened_module_may_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken(tmp_path, monkeypatch, "house_c", "from {p}.model import tree", ("model.tree",)) == []

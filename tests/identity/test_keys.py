from __future__ import annotations

import hashlib

from callgate.identity import hash_key, new_key
from callgate.identity.keys import principal_key


def test_a_new_key_is_recognisable_long_and_never_the_same() -> None:
    made = [new_key() for _ in range(100)]
    assert len({key for key, _ in made}) == 100
    for key, digest in made:
        assert key.startswith("cg_") and len(key) == 46
        assert digest == hash_key(key) == hashlib.sha256(key.encode()).hexdigest()


def test_the_key_of_a_principal_is_stable_and_keeps_its_parts_apart() -> None:
    assert principal_key("https://idp", "alice") == principal_key("https://idp", "alice", "default")
    assert len(principal_key("", "alice")) == 64
    different = {
        principal_key("", "alice"),
        principal_key("alice", ""),
        principal_key("a", "lice"),
        principal_key("", "alice", "other"),
        principal_key('","', "alice"),
        principal_key("", '","alice'),
    }
    assert len(different) == 6

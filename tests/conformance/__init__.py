"""The official conformance suite, a fixture server of our own, and the runner that asks it with and without us."""

"""Benchmarks of callgate. ``python -m bench`` compares direct, callgate and peers in one run."""

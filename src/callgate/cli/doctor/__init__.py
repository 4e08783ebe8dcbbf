"""`callgate doctor`: what is wrong on this machine, with this configuration, and the exact fix."""

from __future__ import annotations

from callgate.cli.doctor.command import doctor

__all__ = ["doctor"]

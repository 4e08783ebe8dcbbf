"""callgate: the one door between AI agents and tools."""

__version__ = "0.1.0"

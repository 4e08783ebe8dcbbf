"""Ask the server: connections, processes, eras, deadlines, and nothing of one server in another's way."""

from .fleet import Upstreams

__all__ = ["Upstreams"]

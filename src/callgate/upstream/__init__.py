"""Ask the server: connections, processes, eras, deadlines, and nothing of one server in another's way."""

from .child import without_last_words
from .fleet import Upstreams

__all__ = ["Upstreams", "without_last_words"]

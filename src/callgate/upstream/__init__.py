"""Ask the server: connections, processes, eras, deadlines, and nothing of one server in another's way."""

from .child import without_last_words
from .fleet import Upstreams
from .references import References

__all__ = ["References", "Upstreams", "without_last_words"]

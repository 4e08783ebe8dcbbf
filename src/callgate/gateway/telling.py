"""What servers tell single sessions outside calls: log messages, the end of an elicitation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callgate.gateway.bus import Bus, unstamped
from callgate.gateway.ladder import LOG_LEVELS
from callgate.gateway.wire import notification
from callgate.types import News

if TYPE_CHECKING:
    from callgate.gateway.house import House

MESSAGE, COMPLETE = "notifications/message", "notifications/elicitation/complete"


class Telling:
    """Only news over a session's own link reach a session here, and nobody else."""

    def __init__(self, bus: Bus, house: House) -> None:
        self._house = house
        bus.route(MESSAGE, self._told)
        bus.route(COMPLETE, self._told)

    def _told(self, news: News) -> None:
        session = self._house.sessions.get(news.session) if news.session else None
        if session is None or session.ticket.principal != news.principal:
            return
        if news.method == MESSAGE and rank(news.params.get("level")) < rank(session.front.log_level or LOG_LEVELS[0]):
            return
        session.push(notification(news.method, unstamped(news.params)))


def rank(level: object) -> int:
    """Severity of a level; an unknown one counts as ``info``."""
    return LOG_LEVELS.index(level) if isinstance(level, str) and level in LOG_LEVELS else 1

"""The admin API: metrics and what an operator may read. Never on the public listener."""

from callgate.api.app import admin_app

__all__ = ["admin_app"]

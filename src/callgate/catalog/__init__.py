"""What exists: the tools of every server, compiled into what each door shows."""

from callgate.catalog.catalog import Catalog
from callgate.catalog.names import exposed_name
from callgate.catalog.snapshot import EVERYTHING, View, server_door, virtual_door

__all__ = ["EVERYTHING", "Catalog", "View", "exposed_name", "server_door", "virtual_door"]

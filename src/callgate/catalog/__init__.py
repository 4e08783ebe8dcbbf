"""What exists: the tools of every server, compiled into what each door shows."""

from callgate.catalog.catalog import Catalog
from callgate.catalog.headers import BadAnnotation, header_arguments
from callgate.catalog.names import SEPARATOR, exposed_name
from callgate.catalog.snapshot import EVERYTHING, View, server_door, virtual_door

__all__ = [
    "EVERYTHING",
    "SEPARATOR",
    "BadAnnotation",
    "Catalog",
    "View",
    "exposed_name",
    "header_arguments",
    "server_door",
    "virtual_door",
]

"""What exists: the tools, prompts and resources of every server, compiled into what each door shows."""

from callgate.catalog.catalog import Catalog, Changes
from callgate.catalog.classes import Classes, believed
from callgate.catalog.entries import entries
from callgate.catalog.headers import BadAnnotation, header_arguments
from callgate.catalog.names import SEPARATOR, exposed_name
from callgate.catalog.parts import Part, exposed_meta, withheld
from callgate.catalog.screening import Screen, Screened, Shown
from callgate.catalog.snapshot import EVERYTHING, server_door, virtual_door
from callgate.catalog.tasks import DECLARED, TASKS, offers_tasks
from callgate.catalog.uri_form import expose, native
from callgate.catalog.uris import flaw
from callgate.catalog.view import View

__all__ = [
    "DECLARED",
    "EVERYTHING",
    "SEPARATOR",
    "TASKS",
    "BadAnnotation",
    "Catalog",
    "Changes",
    "Classes",
    "Part",
    "Screen",
    "Screened",
    "Shown",
    "View",
    "believed",
    "entries",
    "expose",
    "exposed_meta",
    "exposed_name",
    "flaw",
    "header_arguments",
    "native",
    "offers_tasks",
    "server_door",
    "virtual_door",
    "withheld",
]

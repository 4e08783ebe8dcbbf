"""The grants of users at upstream servers: how somebody connects to a server with a browser, and what is kept of it.

``Connections`` is made once for each house (``house.connections``). A call to a server with ``auth: {type: oauth}``
whose user has no grant raises ``ConsentNeeded`` with a ticket. The way from there:

1. ``describe(ticket)`` says whose ticket it is and what will be asked. Whoever opens the page must be that user
   (``Person.key == Pending.user``).
2. ``begin(ticket, user)`` takes the ticket and gives the URL to go to, and a cookie for this browser.
   The user is not the principal: an app or agent that acts for the user has a principal of its own (``user_of``).
3. The browser comes back to ``PUBLIC_URL/oauth/connect/callback``; ``finish(params, cookie)`` keeps the grant.

Every refusal is a ``CallgateError`` whose sentence may be shown to people; it never repeats what the browser sent.
"""

from __future__ import annotations

from callgate.identity.upstream.whose import user_of

from .connections import Around, Connections
from .credential import GrantCredential
from .pending import Connected, Finished, Pending, Started
from .registering import CALLBACK, DOCUMENT

__all__ = [
    "CALLBACK",
    "DOCUMENT",
    "Around",
    "Connected",
    "Connections",
    "Finished",
    "GrantCredential",
    "Pending",
    "Started",
    "user_of",
]

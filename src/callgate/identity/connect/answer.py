"""What an issuer's answer in the browser has to pass (RFC 9207, OAuth 2.1): first who says it, then what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from callgate.errors import Denied

from .pending import Leg

_CODE = re.compile(r"[\x20-\x7e]{1,4096}")
_ERROR = re.compile(r"[a-z_]{1,64}")


def check_answer(params: Mapping[str, str], leg: Leg) -> str:
    """The authorization code. Raises Denied.

    The issuer is compared as it is, without any normalisation (OC-5); of an answer that is another's, nothing is used
    or shown, not even its error (OC-6).
    """
    iss = params.get("iss")
    if (iss is None and leg.iss_expected) or (iss is not None and iss != leg.issuer):
        raise Denied(
            "The answer did not come from the issuer at which the sign-in was begun; nothing of it was used.",
            hint="Make the call again. If this happens again, do not go on, and tell who runs callgate.",
        )
    if (error := params.get("error")) is not None:
        named = f" (`{error}`)" if _ERROR.fullmatch(error) else ""
        raise Denied(
            f"You are not connected to `{leg.server}`: its issuer did not allow it{named}.",
            hint="Make the call again to try once more.",
        )
    code = params.get("code", "")
    if not _CODE.fullmatch(code):
        raise Denied(f"You are not connected to `{leg.server}`: its issuer gave no code.", hint="Make the call again.")
    return code

"""Why somebody could not be signed in."""

from __future__ import annotations


class SignInError(Exception):
    """``message`` is for the person, ``reason`` for log and audit; neither repeats what the browser sent.

    ``status`` is that of the page. ``back`` is where the person wanted to go, ``provider`` the one that was asked, as
    far as they are known. ``hint`` tells whoever reads the log how to mend it. With ``another``, another
    account may help.
    """

    provider = ""
    hint = ""
    another = False

    def __init__(self, message: str, reason: str = "", status: int = 400, back: str = "") -> None:
        super().__init__(reason or message)
        self.message = message
        self.reason = reason or message
        self.status = status
        self.back = back


def expired() -> SignInError:
    """One sentence for an attempt that is over, is another browser's, or never was."""
    return SignInError(
        "This sign-in has expired, was used already, or was begun in another browser.", "no attempt of this browser"
    )


def unavailable(title: str, reason: str) -> SignInError:
    return SignInError(
        f"{title} cannot be reached, or does not answer as it should. Try again in a moment.", reason, 502
    )


def misconfigured(title: str, reason: str, hint: str) -> SignInError:
    """Trying again helps nobody: what callgate is told of the provider is not what the provider knows of callgate."""
    message = f"This gateway is not set up right for {title}. Tell whoever runs it: its log says what to mend."
    error = SignInError(message, reason, 502)
    error.hint = hint
    return error


def not_admitted(message: str, reason: str) -> SignInError:
    """This account may not come in."""
    error = SignInError(message, reason, 403)
    error.another = True
    return error


def not_proved(reason: str) -> SignInError:
    """What the provider answered does not hold."""
    error = SignInError(
        "The answer of the identity provider was not accepted. If it happens again, the log of the gateway says why.",
        reason,
        403,
    )
    if reason.startswith("expired at ") or reason.endswith(" lies in the future"):
        error.hint = "The clocks of this machine and of the provider differ: `timedatectl set-ntp true`."
    return error

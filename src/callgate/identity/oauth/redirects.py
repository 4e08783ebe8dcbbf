"""Where the answer to an authorization request may go (RFC 9700, section 4.1; RFC 8252, section 7)."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 2048
#: What a URI may be made of; no space, control character, backslash, quote or angle bracket.
_SIGNS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9-]{1,63})*\.?)"
_HTTPS = re.compile(rf"(?P<origin>https://(?P<host>{_HOST}|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?)(?:[/?].*)?")
_LOOPBACK = re.compile(r"http://(?P<host>127\.0\.0\.1|\[::1\]|localhost)(?P<port>:[0-9]{1,5})?(?P<rest>(?:[/?].*)?)")
_PRIVATE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*):[^:]*")
_DOT_SEGMENT = re.compile(r"(?i)/(\.|%2e){1,2}(/|\Z)")
#: Schemes that a browser, or the system for it, gives a meaning of its own.
_TAKEN = frozenset(
    {
        "about", "blob", "chrome", "chrome-extension", "cid", "content", "data", "facetime", "feed", "file",
        "filesystem", "ftp", "ftps", "geo", "http", "https", "intent", "jar", "javascript", "ldap", "ldaps", "magnet",
        "mailto", "mid", "moz-extension", "ms-appinstaller", "ms-msdt", "nfs", "news", "resource", "search-ms", "sftp",
        "shell", "sip", "sips", "sms", "smb", "ssh", "tel", "telnet", "urn", "vbscript", "view-source", "vnc", "ws",
        "wss",
    }
)  # fmt: skip


def fault(uri: str, *, private: bool = False, any_scheme: bool = False) -> str:
    """Why an application may not have this redirect URI, or nothing. ``private``: private-use schemes are allowed,
    ``any_scheme``: also those without a dot.

    >>> fault("https://app.example/cb"), fault("http://localhost/cb"), fault("com.example.app:/cb", private=True)
    ('', '', '')
    >>> fault("http://app.example/cb")
    'it is neither https nor on this machine'
    """
    if len(uri) > LONGEST:
        return f"it is longer than {LONGEST} characters"
    if not _SIGNS.fullmatch(uri):
        return "it has a fragment, or characters that no URI has"
    authority = uri.partition("://")[2].partition("/")[0].partition("?")[0]
    if "@" in authority:
        return "it has user information"
    if _DOT_SEGMENT.search(uri.partition("?")[0]):
        return "its path has dot segments"
    if _HTTPS.fullmatch(uri) or is_loopback(uri):
        return ""
    scheme = _PRIVATE.fullmatch(uri)
    if scheme is None or scheme["scheme"] in _TAKEN:
        return "it is neither https nor on this machine"
    if any_scheme or (private and "." in scheme["scheme"].strip(".")):
        return ""
    return "its scheme is not accepted; a private one is a reversed domain name, such as `com.example.app`"


def is_loopback(uri: str) -> bool:
    """Whether the answer stays on the person's machine, where any program may wait for it."""
    found = _LOOPBACK.fullmatch(uri)
    return found is not None and _is_port(found["port"])


def is_https(uri: str) -> bool:
    return _HTTPS.fullmatch(uri) is not None


def registered(asked: str, uris: Iterable[str]) -> bool:
    """Whether a redirect URI is one of these, character by character; of loopback addresses the port is free.

    >>> registered("http://127.0.0.1:5123/cb", ["http://127.0.0.1/cb"])
    True
    >>> registered("https://app.example/cb/more", ["https://app.example/cb"])
    False
    """
    uris = tuple(uris)
    if asked in uris:
        return True
    found = _LOOPBACK.fullmatch(asked)
    if found is None or not _SIGNS.fullmatch(asked) or not _is_port(found["port"]):
        return False
    known = (_LOOPBACK.fullmatch(each) for each in uris)
    return any(each is not None and (each["host"], each["rest"]) == (found["host"], found["rest"]) for each in known)


def shown(uri: str) -> str:
    """Where an answer goes, as a person should see it: the host, or the scheme of a program on this machine."""
    found = _HTTPS.fullmatch(uri)
    if found is not None:
        return uri.removeprefix("https://").partition("/")[0].partition("?")[0].lower()
    return "this machine" if is_loopback(uri) else f"the program on this machine for {uri.partition(':')[0]}:"


def form_source(uri: str) -> str:
    """The source that the `form-action` of a page has to list, so that the form may be answered with this redirect.
    Policies know no IPv6 addresses: there it is the scheme.
    """
    found = _HTTPS.fullmatch(uri) or _LOOPBACK.fullmatch(uri)
    if found is None or found["host"].startswith("["):
        return uri.partition(":")[0] + ":"
    return uri.partition("?")[0].split("/", 3)[0] + "//" + uri.partition("?")[0].split("/", 3)[2]


def with_answer(uri: str, query: str) -> str:
    """The URI with the parameters of the answer added to those that it has (RFC 6749, section 4.1.2)."""
    return f"{uri}{'&' if '?' in uri else '?'}{query}"


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text[1:]) <= 65535

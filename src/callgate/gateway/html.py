"""The few pages that people see at the gateway: plain HTML, no scripts, readable in light and dark."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html import escape

from starlette.responses import HTMLResponse

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d9e0, #3a3f4a); --soft: light-dark(#5b6472, #a3acba);
  --card: light-dark(#ffffff, #1c2027); --accent: light-dark(#1f5fbf, #7db1ff);
  --on-accent: light-dark(#fff, #10141b); }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: light-dark(#f3f5f8, #12151a); color: light-dark(#1a1f27, #e8ecf2);
  font: 16px/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 30rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.75rem; }
.brand { color: var(--soft); font-size: .8125rem; letter-spacing: .04em; margin: 0 0 .35rem; }
h1 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 1rem; overflow-wrap: anywhere; }
p, ul, dl { margin: 0 0 1rem; overflow-wrap: anywhere; } ul { padding-left: 1.25rem; } .soft { color: var(--soft); }
dt { color: var(--soft); font-size: .875rem; } dd { margin: 0 0 .5rem; }
.warning { border-left: 4px solid light-dark(#b45309, #f5a524); padding-left: .75rem; }
.choices { display: flex; flex-wrap: wrap; gap: .75rem; }
.row { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: center; padding: .75rem 0;
  border-top: 1px solid var(--line); } .row p { flex: 1 1 12rem; margin: 0; }
form + p, .choices + p { margin-top: 1rem; } main > :last-child { margin-bottom: 0; }
.choices.tall { flex-direction: column; } .choices.tall .button { text-align: center; padding: .75rem 1.1rem; }
button, .button { font: inherit; display: inline-block; padding: .55rem 1.1rem; border-radius: 8px; cursor: pointer;
  border: 1px solid var(--line); background: transparent; color: inherit; text-decoration: none; }
button.main, .button.main { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
a:not(.button) { color: var(--accent); }
.code { font-family: ui-monospace, monospace; font-size: 1.15rem; letter-spacing: .08em; }
input { font: inherit; width: 100%; padding: .5rem .75rem; margin: .25rem 0 1rem; border-radius: 8px;
  border: 1px solid var(--line); background: transparent; color: inherit; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; } code { overflow-wrap: anywhere; }
input.code { font-family: ui-monospace, monospace; font-size: 1.15rem; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def page(
    title: str, body: str, status: int = 200, *, headers: Mapping[str, str] | None = None, form_to: str = "'self'"
) -> HTMLResponse:
    """One page. ``body`` is HTML whose every foreign word went through ``text``; ``form_to`` lists the sources that a
    form on it may lead to (a redirect that answers a form counts too).
    """
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)} · callgate</title><style>{_STYLE}</style></head>"
        f'<body><main><p class="brand">callgate</p><h1>{text(title)}</h1>{body}</main></body></html>'
    )
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {form_to}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    # Not `no-referrer`: with it browsers send `Origin: null` with our own forms, which the door refuses.
    fixed = {
        "content-security-policy": policy, "x-frame-options": "DENY", "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff", "cache-control": "no-store", "cross-origin-opener-policy": "same-origin",
    }  # fmt: skip
    return HTMLResponse(document, status_code=status, headers={**fixed, **(headers or {})})


def sentence(words: str) -> str:
    """A message of callgate's as HTML: what stands between backticks is code.

    >>> sentence("The server `a<b` is away.")
    'The server <code>a&lt;b</code> is away.'
    """
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", text(words))


def text(foreign: str) -> str:
    """Somebody else's words as text of a page: escaped, and without characters that reorder what is around them."""
    return escape("".join(sign if sign.isprintable() or sign == " " else "\ufffd" for sign in foreign), quote=True)

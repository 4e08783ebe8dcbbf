"""What a change to callgate must pass: ``python -m checks`` (``make check``) runs all of it.

Each module here is one check with a ``main`` of its own: ``size_law``, ``docs_match``, ``paths``, ``rules``.
"""

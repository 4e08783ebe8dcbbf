"""Every client of every era with every server of every era: what works directly, and what works through callgate.

``cells.py`` is the table of what is expected, ``servers/`` and ``clients/`` hold one script for each SDK.
"""

"""Clients of other people against callgate: the official 2.x and 1.x ones and FastMCP's, over HTTP and stdio."""

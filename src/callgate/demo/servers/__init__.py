"""The servers of the demo: small real MCP servers with invented data, over stdio and over HTTP."""

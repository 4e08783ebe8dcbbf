"""The same random session spoken to a server directly and through the door: what the client sees is the same."""

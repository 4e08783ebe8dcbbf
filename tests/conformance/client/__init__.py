"""The client that the official suite starts for each of its client scenarios, alone or with callgate in between."""

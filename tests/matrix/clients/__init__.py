"""One client for each SDK; all do what ``features.py`` or ``features.mjs`` says and tell what they saw as JSON."""

"""Hostile and broken input against a running gateway: nothing may crash it, hang it, or be noticed by others."""

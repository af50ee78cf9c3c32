"""Makers of what the repository holds as data; run by a person, checked by tests."""

"""Proofs that a user can run in minutes; each prints one JSON line of what it measured."""

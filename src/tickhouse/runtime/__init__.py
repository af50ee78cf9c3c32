"""Picks the backends by URL and supervises the stages."""

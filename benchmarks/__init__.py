"""Measurements behind every speed claim; ratios in one run, see README.md."""

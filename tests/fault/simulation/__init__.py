"""Relay, landers and loader over a simulated clock, Kafka, spool, store and warehouse.

A schedule is a seed: the same seed is the same run, and the same seed with fewer steps is a prefix
of it. Time passes only where the schedule says so, and every call on a backend may crash its
caller, lose its answer, be applied late, or let somebody else act first.
"""

"""Starlette's test client, whose import warns of a newer httpx that is not needed here."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["TestClient"]

"""Finnhub: trades over the socket, quotes and reference data over REST."""

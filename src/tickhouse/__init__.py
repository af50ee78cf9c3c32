"""tickhouse: market ticks from the wire to governed gold tables, with proof that none was lost."""

__version__ = "0.1.0"

"""The words of tickhouse: frames, positions, sessions, symbols, units. Pure: no I/O, no clock."""

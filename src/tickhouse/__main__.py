"""`python -m tickhouse` is the `tickhouse` command."""

from tickhouse.cli import main

main()

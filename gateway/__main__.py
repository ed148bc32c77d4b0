"""`python -m gateway` is the command `tidegate`."""

from gateway.cli import main

main()

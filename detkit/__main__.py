"""`python -m detkit` is the same as `detkit`."""

from detkit.cli.main import main

main()

"""The same as `detkit eval`: see detkit/cli/evaluate.py."""

from detkit.cli.evaluate import main

if __name__ == "__main__":
    main()

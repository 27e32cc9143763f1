"""The same as `detkit demo`: see detkit/cli/demo.py."""

from detkit.cli.demo import main

if __name__ == "__main__":
    main()

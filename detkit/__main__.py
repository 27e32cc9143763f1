"""The console script `detkit`, and `python -m detkit`."""

import sys


def main() -> None:
    """All commands; a Ctrl-C that comes before they are loaded ends quietly, too."""
    try:
        from detkit.cli.main import main as command_line  # takes seconds

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

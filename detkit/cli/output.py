"""Lines that commands print."""

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Print a line as it is: a path may hold what looks like markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)

"""Lines that commands print."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detkit.weights import LoadReport


def say(console: Console, text: str) -> None:
    """Print a line as it is: a path may hold what looks like markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_report(console: Console, report: LoadReport, title: str) -> None:
    """Print how many tensors of a file were loaded, and what became of the others."""
    table = Table("tensors", "number", "such as", title=escape(title))
    for kind, number, names in report.rows():
        table.add_row(kind, str(number), names)
    console.print(table)

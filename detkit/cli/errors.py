"""How commands end: a user's mistake is one line and exit status 2; --debug shows the traceback instead."""

import errno
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from detkit.engine.distributed import RaisedElsewhere, world_from_environment
from detkit.engine.signals import Stopped
from detkit.large_pages import use_large_pages

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Config keys to change: section.key=value ...", show_default=False)
]

OVERRIDE = re.compile(r"^[a-z_]+(\.[a-z_0-9]+)+=")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What names files, and what are section.key=value overrides among them."""
    overrides = [word for word in words if OVERRIDE.match(word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def run_app(app: typer.Typer) -> None:
    """Run a command line and leave the process with its exit status.

    0 done; 1 the work failed (a loss that is not finite, memory or disk full); 2 the input is wrong; 130 and 143
    stopped by SIGINT and SIGTERM.
    """
    use_large_pages()
    debug = "--debug" in sys.argv[1:]
    try:
        app()
    except Stopped as stopped:
        sys.exit(stopped.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if debug:
            raise
        if not _said_by_rank_0(error):
            _print_error(error)
        sys.exit(2 if isinstance(error, ValueError) or _is_users(error) else 1)


def run_command(command: Callable[..., Any]) -> None:
    """Run one command as a program of its own, as the files in tools/ do."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)


def _is_users(error: Exception) -> bool:
    """Whether a file or folder that the user named cannot be what it is asked to be."""
    return isinstance(
        error, (PermissionError, NotADirectoryError, IsADirectoryError, FileNotFoundError, FileExistsError)
    ) or (isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG)


def _said_by_rank_0(error: Exception) -> bool:
    """Whether this is what all processes of a run were told of, and this is not the one that speaks for them."""
    return isinstance(error.__cause__, RaisedElsewhere) and world_from_environment().rank > 0


def _print_error(error: Exception) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold red]error:[/]", end=" ")
    console.print(str(error), markup=False)

"""How every stage starts: a command line by typer, and errors as people want to read them."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from flap.errors import UserError

INTERRUPTED = 130


def run(main: Callable[..., Any]) -> None:
    """Run `main` with its arguments from the command line; its docstring is the help."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app(standalone_mode=False)
    except typer.Abort:
        _stop(INTERRUPTED, "interrupted; what is finished is kept, run again to go on")
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "interrupted; what is finished is kept, run again to go on")
    except UserError as error:
        _stop(1, f"error: {error}")
    except Exception as error:
        if hasattr(error, "show"):  # click's usage errors: bad flags, missing arguments
            error.show()
            sys.exit(getattr(error, "exit_code", 2))
        raise


def print_counts(stage: str, rows_in: int, rows_out: int, rejected: int) -> None:
    """One line that shows the counts add up; a row that is nowhere is a bug, so it raises."""
    typer.echo(f"{stage}: {rows_in} in = {rows_out} out + {rejected} rejected")
    assert rows_in == rows_out + rejected, f"{stage}: {rows_in} rows in, not all accounted for"


def _stop(code: int, message: str) -> None:
    typer.echo(message, err=True)
    sys.exit(code)

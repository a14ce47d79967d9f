"""Start of every stage: command line by typer, errors without a traceback, row counts."""

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flap.core.errors import UserError
from flap.core.processes import SIGNALLED, exit_on_sigterm, exit_with_parent
from flap.core.shards import DISK_FULL

PARAMS = Path(os.environ.get("FLAP_PARAMS") or "params.yaml")
PathOption = Annotated[Path, typer.Option(show_default=False)]
INTERRUPTED = SIGNALLED + signal.SIGINT


def run(main: Callable[..., Any]) -> None:
    """Run `main` with arguments from the command line. The docstring of `main` is the help text."""
    exit_with_parent()
    exit_on_sigterm()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    @functools.wraps(main)
    def command(*args: Any, **kwargs: Any) -> None:
        with report_errors():
            main(*args, **kwargs)

    app()


@contextmanager
def report_errors() -> Iterator[None]:
    """Print a `UserError` without a traceback and end the process."""
    try:
        yield
    except UserError as error:
        _exit_with(str(error))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _exit_with(f"{where}no space left on the disk; free some, run again")
    except KeyboardInterrupt:
        typer.echo("interrupted; what is finished is kept, run again to go on", err=True)
        sys.exit(INTERRUPTED)


def _exit_with(message: str) -> NoReturn:
    """Exit 1 with a message. In a training process, the launcher shows the message, once."""
    if error_file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": message, "timestamp": int(time.time())}
        Path(error_file).write_text(json.dumps(content))
    else:
        typer.echo(f"error: {message}", err=True)
    sys.exit(1)


def print_counts(stage: str, rows_in: int, rows_out: int, rejected: int) -> None:
    """Print the counts in one line.

    Raises:
        AssertionError: a row was lost.
    """
    typer.echo(f"{stage}: {rows_in} in = {rows_out} out + {rejected} rejected")
    assert rows_in == rows_out + rejected, f"{stage}: {rows_in} rows in, not all accounted for"

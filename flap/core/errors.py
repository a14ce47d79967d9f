"""The exception for errors that a user can cause and repair, and helpers for its messages."""


class UserError(Exception):
    """Bad input, parameters or environment; the message names the cause and the way out.

    `pipeline.stage.run` prints the message without a traceback and exits with 1. Errors that only
    our own code can cause are `assert`s.
    """


def missing_extra(setting: str, package: str, extra: str) -> UserError:
    """The error for an optional package that `setting`, a variable or a key, asks for."""
    return UserError(
        f"{setting}: {package} is not installed; "
        f"uv pip install -c requirements/main.txt -e '.[{extra}]'"
    )


def first_line(error: Exception) -> str:
    """The first line of a library's error message, or the error's type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""`UserError`, the exception for everything that a user can cause and mend."""


class UserError(Exception):
    """Bad input, parameters or environment; the message names the cause and the way out.

    `pipeline.stage.run` prints the message without a traceback and exits 1. An `assert` checks
    what only a bug can break.
    """


def missing_extra(setting: str, package: str, extra: str) -> UserError:
    """The error for an optional package that `setting`, a variable or a key, asks for."""
    return UserError(
        f"{setting}: {package} is not installed; "
        f"uv pip install -c requirements/main.txt -e '.[{extra}]'"
    )


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""`UserError`, the exception for everything that a user can cause and mend."""


class UserError(Exception):
    """Bad input, parameters or environment; the message names the cause and the way out.

    `pipeline.stage.run` prints the message without a traceback and exits 1. An `assert` checks
    what only a bug can break.
    """


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

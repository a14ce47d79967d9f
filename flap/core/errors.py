"""The one exception for what a user can cause and mend, and others' words within it."""


class UserError(Exception):
    """Bad input, parameters or surroundings; the message names the thing and the way out.

    `pipeline.stage.run` prints it without a traceback and exits 1. What only we can break
    is an `assert`.
    """


def first_line(error: Exception) -> str:
    """What a library's error says, short enough to stand in a message; its type if it is mute."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

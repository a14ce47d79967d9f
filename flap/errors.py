"""The one exception for what a user can cause and mend."""


class UserError(Exception):
    """Bad input, parameters or surroundings; the message names the thing and the way out.

    `pipeline.stage.run` prints it without a traceback and exits 1. What only we can break
    is an `assert`.
    """

"""Mistakes that a person can mend: the command line prints them as one line and exits with 2."""


class UserError(ValueError):
    """What was found, what was expected, and the remedy, in one line."""


class ConfigError(UserError):
    """A setting."""


class DataError(UserError):
    """A manifest, a text or an image."""


class CheckpointError(UserError):
    """A file that cannot be used as a checkpoint, and why."""

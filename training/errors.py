"""What stops a run: one error for each kind of reason, every message a single line that says what to do.

Knows names alone, so that every module may raise them.
Invariant: the command line prints each of them as one line; any other exception is a bug.
"""


class RecipeError(Exception):
    """The recipe is wrong; the message names the file, the key and what was expected."""


class DataError(Exception):
    """A table cannot be read; the message names the file, the row and the column, and what was expected."""


class StageError(Exception):
    """A stage cannot run; the message says what is missing and what to do."""


class Unfinished(Exception):
    """A stage did its share of the work and other ranks have not done theirs yet."""

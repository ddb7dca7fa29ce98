"""The one exception that means "the user can mend this"."""


class SlmError(ValueError):
    """A user's mistake, told in one sentence that names the thing, its value and what is legal.

    The command line prints the sentence to stderr and exits with 2; everything else that is raised is a bug and keeps its traceback.
    """

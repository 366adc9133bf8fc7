"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """Something a user can mend: one sentence that names the file, record or key, what was found,
    what was expected and what to do. The command line prints it without a traceback and exits 1."""


class BadRecordError(UserError):
    """One record (a row, a picture, a response) is unusable; the run may go on without it.

    Whoever catches it quarantines the record with this text as its reason and counts it.
    """

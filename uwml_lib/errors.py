"""The one error class of the kit: a sentence that says what was found and what was expected."""


class UWMLError(ValueError):
    """Something the user gave cannot be used; the message alone must be enough to mend it."""

"""The one error that people see: what is wrong, and the mend."""


class InputError(Exception):
    """Bad input at the border: the message names the offending value and what would be right."""

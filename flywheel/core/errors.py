"""The one exception type that people are meant to read."""


class FlywheelError(Exception):
    """A mistake of the user's or a state of the world, told in one sentence that names the thing and the mend.

    The command line prints the sentence without a traceback; libraries may catch it.
    """


class SpecError(FlywheelError):
    """A value does not have the shape, dtype, finiteness or bounds that its specification declares."""

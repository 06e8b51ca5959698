"""Every test draws the same examples on every machine, and none is timed."""

from hypothesis import settings

settings.register_profile("flywheel", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("flywheel")

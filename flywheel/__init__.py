"""Flywheel: every robot episode is kept, and every policy learns from all of them.

Import modules directly, for example ``from flywheel.datasets.store import EpisodeStore``. This package imports nothing
heavy: a robot computer that only logs episodes needs neither torch nor TensorFlow.
"""

__version__ = "0.1.0"

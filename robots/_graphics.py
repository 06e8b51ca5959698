"""How MuJoCo draws, on machines with and without a display: shared by every simulation."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flywheel.core.errors import FlywheelError

GRAPHICS = "MUJOCO_GL"
"""The environment variable that chooses."""
MEND = "install libegl1 and libgl1-mesa-dri, or set MUJOCO_GL to osmesa, glfw or disable"


@contextmanager
def chosen_graphics() -> Iterator[None]:
    """Decide how MuJoCo draws, which it settles for good when it is imported, and leave the environment as it was.

    robosuite overwrites the variable with ``egl`` whatever it holds; a child process that inherited that would fail to
    import MuJoCo on a machine without EGL.
    """
    before = os.environ.get(GRAPHICS)
    if before is None and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ[GRAPHICS] = "egl" if _has_egl() else "disable"
    try:
        yield
    finally:
        os.environ.pop(GRAPHICS, None)
        if before is not None:
            os.environ[GRAPHICS] = before


@contextmanager
def drawing() -> Iterator[None]:
    """What draws goes in here; raises `FlywheelError` where it cannot."""
    if "tensorflow" in sys.modules:
        # TensorFlow 2.21 exports an LLVM of its own, and Mesa's software renderer crashes the process when it meets it.
        raise FlywheelError("A process that has imported TensorFlow cannot draw pictures; draw them in another process.")
    try:
        with chosen_graphics():
            yield
    except FlywheelError:
        raise
    except Exception as error:  # whatever the graphics stack raises, from ctypes upwards
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FlywheelError(f"Pictures cannot be drawn here ({why}); {MEND}.") from error


def _has_egl() -> bool:
    """Whether EGL's library is there; without it MuJoCo cannot even be imported when asked to use it."""
    platform = os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    try:
        importlib.import_module("OpenGL.EGL")
    except (ImportError, AttributeError, OSError):
        return False
    return platform == "egl"

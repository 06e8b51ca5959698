"""What a rate was measured on; a figure without it says nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from flywheel.core.lineage import code_version, package_versions


def describe() -> dict[str, str | int | float]:
    """This machine and the software on it, now.

    `cores` are the logical ones that this process may use; `load` is the one-minute average, above 0 where others compute too.
    """
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "code": code_version(),
        **package_versions("torch", "numpy", "lightning", "robosuite", "mujoco"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()

"""What a rate was measured on; a figure without it says nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from flywheel.core.lineage import code_version, package_versions


@dataclass(frozen=True)
class Machine:
    """A machine and the software on it."""

    cpu: str
    """The processor's model name."""
    cores: int
    """The logical cores that this process may use."""
    memory_gib: float
    system: str
    versions: dict[str, str]
    """Python's and the relevant packages' versions."""
    code: str
    """This package's version and commit."""
    load: float
    """The one-minute load average when the description was made: above 0, others were computing too."""

    @classmethod
    def describe(cls) -> Machine:
        """This machine, now."""
        return cls(
            cpu=_cpu_model(),
            cores=_usable_cores(),
            memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            system=f"{platform.system()} {platform.release()}",
            versions=package_versions("torch", "numpy", "lightning", "robosuite", "mujoco"),
            code=code_version(),
            load=round(os.getloadavg()[0], 2),
        )

    def __str__(self) -> str:
        """Two lines for people."""
        hardware = f"{self.cpu}, {self.cores} cores, {self.memory_gib} GiB, {self.system}, load {self.load}"
        return f"{hardware}\nflywheel {self.code}, " + ", ".join(f"{name} {version}" for name, version in self.versions.items())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

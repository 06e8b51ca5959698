"""Freed memory is there for the next update, without a page fault."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import sys
import torch
from flywheel.core.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
for number in range(20):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(1_000_000) for _ in range(4)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_what_was_freed_is_taken_again_without_a_page_fault() -> None:
    # The thresholds that glibc begins with; left alone it raises them as it goes, or not, by how the blocks happen to lie.
    first = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", _FAULTS, how], text=True, env={**os.environ, **first}))
        for how in ("give back", "keep")
    )
    assert given_back > 10_000
    assert kept < given_back / 100

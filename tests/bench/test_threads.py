from __future__ import annotations

import os

import pytest
import torch

from flywheel.bench.threads import ThreadsConfig, main


def test_a_row_has_both_rates_and_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    try:
        main(ThreadsConfig(("bc",), (8,), bursts=2, seconds=0.01, transitions=1_000))
    finally:
        torch.set_num_threads(before)
    *_, row = capsys.readouterr().out.strip().splitlines()
    _, name, one, many, ratio, chosen, _ = (cell.strip() for cell in row.split("|"))
    assert name == "bc"
    assert float(one.split()[0]) > 0
    assert float(many.split()[0]) > 0
    assert float(ratio.split()[0]) > 0
    assert int(chosen) in (1, len(os.sched_getaffinity(0)))

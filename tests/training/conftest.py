from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Several tests run at once; more threads than cores make each of them many times slower."""
    torch.set_num_threads(1)

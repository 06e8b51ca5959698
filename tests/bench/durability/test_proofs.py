"""The proofs S1 to S10 and X5 of docs/benchmarks.md with small counts; the module itself runs them in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.bench.durability.disk_full import fill
from flywheel.bench.durability.flips import flip_bits
from flywheel.bench.durability.hostile import ATTACKS, attack
from flywheel.bench.durability.kills import read_while_writing, run_kills
from flywheel.bench.durability.latency import recovery_seconds, scaling
from flywheel.bench.durability.power_loss import lose_power
from flywheel.bench.durability.sweep import OPERATIONS, sweep


def test_kills_of_four_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    found = run_kills(tmp_path, 24, with_tfds=False, seed=3)
    assert found.kills == 24
    assert found.acknowledged > 24


@pytest.mark.slow
def test_tfds_reads_the_store_after_every_kill_and_before_any_recovery(tmp_path: Path) -> None:
    assert run_kills(tmp_path, 80, seed=4).tfds_reads > 10


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_every_single_call_loses_nothing(tmp_path: Path, operation: str) -> None:
    assert sweep(tmp_path, operation) > 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_power_loss_loses_nothing(tmp_path: Path, operation: str) -> None:
    assert lose_power(tmp_path, operation, seed=1, limit=12) == 12


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    assert flip_bits(tmp_path, 300).total() == 300


def test_hostile_stores_are_refused_or_harmless(tmp_path: Path) -> None:
    assert attack(tmp_path, 6 * len(ATTACKS)) > 20


def test_a_disk_that_is_full_at_any_byte_costs_nothing(tmp_path: Path) -> None:
    assert fill(tmp_path, range(100, 14_000, 1_900)) >= 5


def test_readers_go_on_beside_writers_and_compaction(tmp_path: Path) -> None:
    opens, episodes, _ = read_while_writing(tmp_path, 60)
    assert opens >= 60
    assert episodes > 20


def test_a_dead_writers_thousand_episodes_are_recovered(tmp_path: Path) -> None:
    assert recovery_seconds(tmp_path / "recovery", 100) > 0
    assert scaling(tmp_path / "scaling", 2, 10) > 0

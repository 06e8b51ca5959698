import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.bench.peers import PAIRS, Comparison, PeersConfig, Side, main
from flywheel.core import registry
from flywheel.core.errors import FlywheelError


def test_every_pair_names_an_algorithm_of_ours() -> None:
    assert {pair.algorithm for pair in PAIRS} <= set(registry.names("algorithms"))


def test_a_row_gives_the_ratios_of_neighbouring_bursts() -> None:
    comparison = Comparison("iql", "corl", (256, 256), [8.0, 9.0, 12.0], [4.0, 3.0, 3.0])
    assert comparison.ratios == [2.0, 3.0, 4.0]
    assert comparison.row() == "| iql | 256 x 256 | 9.0 (8.0-12.0) | corl | 3.0 (3.0-4.0) | 3.00 (2.00-4.00) |"


@pytest.mark.parametrize("algorithm", ["td3_bc", "hiql"])
def test_our_side_trains_at_the_sizes_that_are_asked_for(algorithm: str) -> None:
    with Side([sys.executable, "-m", "flywheel.bench.peer_flywheel", algorithm, "2000", "16", "16"]) as side:
        assert side.burst(0.01) > 0


def test_a_side_that_dies_says_why() -> None:
    with (
        Side([sys.executable, "-c", "raise SystemExit('no such thing')"]) as side,
        pytest.raises(FlywheelError, match="ended early: no such thing"),
    ):
        side.burst(0.01)


def test_a_peer_that_is_unknown_or_missing_is_named(tmp_path: Path) -> None:
    config = PeersConfig(folder=tmp_path)
    with pytest.raises(FlywheelError, match="'make bench-peers' installs d3rlpy"):
        main(config)
    with pytest.raises(FlywheelError, match="no peer 'sb3'; known: d3rlpy, corl, robomimic, torchrl, ogbench"):
        main(replace(config, peers=("sb3",)))

from __future__ import annotations

import pytest

from flywheel.algorithms.base import Algorithm
from flywheel.core import registry
from flywheel.core.errors import FlywheelError


def test_names_are_the_files() -> None:
    assert {"actionable_models", "bc", "cql", "iql"} <= set(registry.names("algorithms"))
    assert {"lift", "stack"} <= set(registry.names("tasks"))
    assert {"sim", "fake"} <= set(registry.names("robots"))


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(FlywheelError, match="did you mean 'iql'"):
        registry.module("algorithms", "iqll")


def test_far_from_everything_the_known_names_are_listed() -> None:
    with pytest.raises(FlywheelError, match=r"There is no algorithm 'zzz'; known: actionable_models, .*bc, "):
        registry.module("algorithms", "zzz")


def test_load_finds_the_one_class_of_the_file() -> None:
    assert registry.load("algorithms", "iql", Algorithm).__name__ == "IQL"

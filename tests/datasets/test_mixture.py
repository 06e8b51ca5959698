from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec, ObservationSpec
from flywheel.datasets.cache.array_cache import ArrayMaps
from flywheel.datasets.cache.frames import Frames
from flywheel.datasets.columns import Columns
from flywheel.datasets.mixture import Mixture, Source
from flywheel.datasets.relabel import Hindsight, TaskReward
from flywheel.datasets.sampler import UniformSampler, locate
from flywheel.datasets.table import EpisodeTable
from flywheel.datasets.window import Window
from tests.tables import chi_square

CAMERA = ArraySpec((2, 2, 3), "uint8")


def _source(
    keys: Mapping[str, int], state: list[list[float]], action: int, transitions: list[int], camera: bool = False
) -> Source:
    rows = len(state)
    count = len(transitions)
    length = np.array(transitions)
    table = EpisodeTable(
        episode_id=tuple(f"{action}-{number}" for number in range(count)),
        start=np.cumsum([0, *(length[:-1] + 1)]),
        transitions=length,
        success=np.zeros(count, np.bool_),
        terminal=np.ones(count, np.bool_),
        episode_return=np.zeros(count),
        task=np.full(count, "lift"),
    )
    pictures = np.arange(rows * 12, dtype=np.uint8).reshape(rows, 12) + action
    columns = Columns(
        table=table,
        state=np.array(state, np.float32),
        action=np.arange(rows * action, dtype=np.float32).reshape(rows, action),
        reward=np.arange(rows, dtype=np.float32) + 10 * action,
        arrays={"wrist": Frames(ArrayMaps(CAMERA, pictures))} if camera else {},
    )
    return Source(columns, ObservationSpec({key: ArraySpec((size,)) for key, size in keys.items()}))


@pytest.fixture
def mixture() -> Mixture:
    """An arm with a gripper (mean 2, 3, 10 and std 1, 1, 2) and one without, whose joint (mean 100, std 5) is called z."""
    arm = _source({"arm": 2, "grip": 1}, [[1, 2, 8], [3, 4, 12], [1, 2, 8], [3, 4, 12]], 2, [1, 1], camera=True)
    other = _source({"z": 1, "arm": 2}, [[10, 0, 95], [30, 4, 105]], 3, [1])
    return Mixture([arm, other])


def test_states_are_aligned_by_name_and_normalised_by_their_own_statistics(mixture: Mixture) -> None:
    np.testing.assert_array_equal(mixture.mean, [2, 3, 10, 100])
    np.testing.assert_array_equal(mixture.std, [1, 1, 2, 5])
    state = mixture.observations(np.array([0, 5, 3, 4]))["state"].numpy()
    # The other arm's (10, 0) is one standard deviation (10, 2) below its mean (20, 2), so it comes as (1, 2).
    np.testing.assert_array_equal(state, [[1, 2, 8, 100], [3, 4, 10, 105], [3, 4, 12, 100], [1, 2, 10, 95]])
    normalised = (state - mixture.mean) / mixture.std
    np.testing.assert_array_equal(normalised, [[-1, -1, -1, 0], [1, 1, 0, 1], [1, 1, 1, 0], [-1, -1, 0, -1]])


def test_batches_have_masks_and_padded_zeros(mixture: Mixture) -> None:
    indices = locate(mixture.table, np.array([2, 0]))
    batch = mixture.gather(indices, TaskReward()(mixture.table, indices, np.random.default_rng(0)), 0.5)
    np.testing.assert_array_equal(batch.action, [[0, 1, 2], [0, 1, 0]])
    np.testing.assert_array_equal(batch.reward, [30, 20])
    np.testing.assert_array_equal(batch.discount, [0, 0])
    np.testing.assert_array_equal(batch.observation["wrist"].permute(0, 2, 3, 1).reshape(2, 12), [[0] * 12, range(2, 14)])
    assert batch.mask is not None
    np.testing.assert_array_equal(batch.mask["state"], [[1, 1, 0, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(batch.mask["action"], [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(batch.mask["wrist"], [False, True])
    assert len(batch[:1].mask or {}) == 3
    assert mixture.sample_bytes == 36


def test_one_store_in_a_mixture_is_that_store(mixture: Mixture) -> None:
    source = mixture.sources[0]
    alone = Mixture([source])
    indices = UniformSampler(alone.table).sample(np.random.default_rng(0), 30)
    meaning = Hindsight()(alone.table, indices, np.random.default_rng(1))
    mixed, own = (columns.gather(indices, meaning, 0.9, Window(2, 3)) for columns in (alone, source.columns))
    for name in ("action", "reward", "discount", "is_pad", "is_pad_history"):
        assert torch.equal(getattr(mixed, name), getattr(own, name)), name
    for name in ("observation", "next_observation", "goal"):
        assert getattr(mixed, name).keys() == getattr(own, name).keys()
        for key, value in getattr(mixed, name).items():
            assert torch.equal(value, getattr(own, name)[key]), (name, key)


def test_each_store_gets_its_share_and_its_transitions_the_same() -> None:
    one = _source({"arm": 1}, [[float(row)] for row in range(35)], 1, [30, 3])
    two = _source({"arm": 1}, [[float(row)] for row in range(6)], 2, [5])
    mixture = Mixture([one, two])
    indices = mixture.sampler([0.25, 0.75]).sample(np.random.default_rng(0), 100_000)
    number = mixture.table.first[indices.episode] + indices.step
    expected = np.repeat([0.25 / 33, 0.75 / 5], [33, 5]) * 100_000
    assert abs(chi_square(np.bincount(number, minlength=38), expected)) < 5
    with pytest.raises(FlywheelError, match="one share for each of the 2 stores"):
        mixture.sampler([1.0])
    for shares in ([1.5, -0.5], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(FlywheelError, match="shares of the stores must be at least 0"):
            mixture.sampler(shares)


def test_what_cannot_be_aligned_is_refused() -> None:
    one = _source({"arm": 1}, [[0.0], [1.0]], 1, [1], camera=True)
    wide = _source({"arm": 2}, [[0.0, 0.0], [1.0, 1.0]], 1, [1])
    with pytest.raises(FlywheelError, match=r"observation\['arm'\] has \[1, 2\] numbers"):
        Mixture([one, wide])
    large = _source({"arm": 1}, [[0.0], [1.0]], 1, [1])
    maps = ArrayMaps(ArraySpec((2, 4, 3), "uint8"), np.zeros((2, 24), np.uint8))
    object.__setattr__(large.columns, "arrays", {"wrist": Frames(maps)})
    with pytest.raises(FlywheelError, match=r"observation\['wrist'\] has several shapes"):
        Mixture([one, large])

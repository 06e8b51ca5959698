"""Augmentation: what moves, what stays, and that it repeats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.augment import Augmentation, cutout, jitter, random_shift


def pictures(rows: int, height: int = 12, width: int = 10, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    values = torch.randint(256, (rows, height, width, channels), generator=generator, dtype=torch.uint8)
    return values.permute(0, 3, 1, 2)


def batch(rows: int = 8) -> Batch:
    seen = {"state": torch.zeros(rows, 2), "front": pictures(rows)}
    return Batch(seen, torch.zeros(rows, 1), torch.zeros(rows), torch.ones(rows), dict(seen), goal={"front": pictures(rows)})


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 14), st.integers(1, 14), st.sampled_from([1, 3, 4, 6]))
def test_a_shift_is_a_crop_of_the_picture_with_its_edge_repeated(
    rows: int, by: int, height: int, width: int, channels: int
) -> None:
    before = pictures(rows, height, width, channels)
    moved = random_shift(before, by, torch.Generator().manual_seed(0))
    assert moved.dtype == torch.uint8
    assert moved.shape == before.shape
    padded = np.pad(before.numpy(), ((0, 0), (0, 0), (by, by), (by, by)), mode="edge")
    for row in range(rows):
        crops = [
            padded[row, :, down : down + height, right : right + width]
            for down in range(2 * by + 1)
            for right in range(2 * by + 1)
        ]
        assert any(np.array_equal(moved[row].numpy(), crop) for crop in crops)


def test_shifts_go_everywhere_alike() -> None:
    one = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    one[0, 0, 4, 4] = 1
    moved = random_shift(one.expand(5000, 1, 9, 9), 2, torch.Generator().manual_seed(0))
    places = moved.sum(dim=(0, 1))[2:7, 2:7]
    assert int(places.sum()) == 5000
    assert (places - 200).abs().max() < 60  # 25 places, standard deviation 14


def test_colours_stay_in_range_and_nothing_changes_without_change() -> None:
    before = pictures(16)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(jitter(before, 0.0, 0.0, 0.0, generator), before)
    lighter = jitter(before, 0.5, 0.0, 0.0, generator).float() / before.clamp(min=1).float()
    spread = lighter.amax(dim=(1, 2, 3)) - lighter.amin(dim=(1, 2, 3))
    assert lighter.mean(dim=(1, 2, 3)).std() > 0.05
    assert spread.min() >= 0
    grey = before[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(jitter(grey, 0.0, 0.0, 1.0, generator), grey)  # there is no colour to change


def test_each_of_several_pictures_in_one_keeps_its_own_colours() -> None:
    before = pictures(16, channels=6)
    generator = torch.Generator().manual_seed(0)
    stronger = jitter(before, 0.0, 0.0, 1.0, generator)
    assert not torch.equal(stronger, before)
    other = before.clone()
    other[:, 3:] = 255 - other[:, 3:]
    assert torch.equal(jitter(other, 0.0, 0.0, 1.0, generator.manual_seed(0))[:, :3], stronger[:, :3])
    depth = pictures(16, channels=4)
    assert torch.equal(jitter(depth, 0.0, 0.0, 1.0, generator), depth)


def test_what_is_seen_by_fewer_cameras_moves_alike_too() -> None:
    seen = {"front": pictures(8), "wrist": pictures(8, 12, 10)}
    goal = {"wrist": seen["wrist"]}
    both = Batch(seen, torch.zeros(8, 1), torch.zeros(8), torch.ones(8), dict(seen), goal=goal)
    moved = Augmentation(consistent=True)(both)
    assert torch.equal(moved.goal["wrist"], moved.observation["wrist"])
    assert not torch.equal(moved.observation["wrist"], moved.observation["front"])


def test_a_square_is_covered_anywhere() -> None:
    before = torch.zeros(2000, 3, 20, 20, dtype=torch.uint8)
    covered = (cutout(before, 0.5, torch.Generator().manual_seed(0)) == 128).float()
    assert torch.equal(covered[:, 0], covered[:, 2])
    assert covered.sum(dim=(2, 3)).max() == 100  # half of each side
    assert (covered[:, 0].mean(dim=0) > 0.04).all()  # a corner is covered least


def test_a_batch_is_augmented_alike_or_each_for_itself() -> None:
    torch.manual_seed(0)
    apart = Augmentation()(batch())
    assert not torch.equal(apart.observation["front"], apart.next_observation["front"])
    together = Augmentation(consistent=True)(batch())
    assert torch.equal(together.observation["front"], together.next_observation["front"])
    assert torch.equal(together.observation["front"], together.goal["front"])
    assert torch.equal(apart.observation["state"], batch().observation["state"])


def test_the_seed_says_all_of_it() -> None:
    everything = Augmentation(brightness=0.2, contrast=0.2, saturation=0.2, cutout=0.3, probability=0.5)
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(everything(batch()).goal["front"])
    assert torch.equal(*found)
    untouched = (found[0] == batch().goal["front"]).flatten(1).all(dim=1)
    assert untouched.any()
    assert not untouched.all()


def test_without_pictures_nothing_is_drawn() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    plain = dataclasses.replace(
        batch(), observation={"state": torch.zeros(8, 2)}, next_observation={"state": torch.zeros(8, 2)}, goal=None
    )
    assert Augmentation()(plain) is plain
    assert Augmentation(shift=0)(batch()).observation["front"] is not None
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("settings", [{"shift": -1}, {"cutout": 1.5}, {"probability": -0.1}])
def test_numbers_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(FlywheelError, match="must"):
        Augmentation(**settings)

"""Learning from a store that holds pictures and no state, as OGBench's visual data does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.cli.main import main
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec, ObservationSpec
from flywheel.datasets.columns import Columns
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import POLICY_FILE, LearnedPolicy
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from tests.point import SCHEMA, episode

SIZE = 36
SEEN = DataConfig(batch_size=8, pictures=("pixels",))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    schema = Schema(ObservationSpec({"pixels": ArraySpec((SIZE, SIZE, 3), "uint8")}), SCHEMA.action)
    made = EpisodeStore.create(tmp_path_factory.mktemp("data"), "stateless", schema)
    with made.writer() as writer:
        for seed in range(4):
            source = episode(seed)
            pictures = np.random.default_rng(seed).integers(0, 256, (len(source), SIZE, SIZE, 3), np.uint8)
            writer.append(dataclasses.replace(source, observation={"pixels": pictures}))
    return made


def config(store: EpisodeStore, output: Path, name: str, data: DataConfig = SEEN, updates: int = 4) -> TrainConfig:
    settings = algorithm_class(name).Config(hidden=(16,))
    settings = dataclasses.replace(settings, encoder=dataclasses.replace(settings.encoder, features=8))
    return TrainConfig(name, settings, store=store.path, output=output, data=data, updates=updates, save_every=2)


def weights(policy: LearnedPolicy) -> dict[str, torch.Tensor]:
    return policy.algorithm.state_dict()


@pytest.mark.parametrize("name", ["bc", "actionable_models"])
def test_it_trains_resumes_and_acts(store: EpisodeStore, tmp_path: Path, name: str) -> None:
    whole = train(config(store, tmp_path / "whole", name))
    train(config(store, tmp_path / "parts", name, updates=2))
    resumed = train(config(store, tmp_path / "parts", name))
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key
    shown, other = ({"pixels": np.full((SIZE, SIZE, 3), grey, np.uint8)} for grey in (40, 220))
    goal = other if whole.header.goal_conditioned else None
    loaded = LearnedPolicy.load(tmp_path / "whole" / POLICY_FILE)
    assert loaded.act(shown, goal).shape == (SCHEMA.action.dim,)
    np.testing.assert_array_equal(loaded.act(shown, goal), whole.act(shown, goal))


def test_its_columns_have_a_state_of_length_0_whenever_they_are_opened(store: EpisodeStore) -> None:
    for _ in range(2):
        columns = Columns.open(store, store.snapshot(), arrays=("pixels",))
        assert columns.state.shape == (len(columns.action), 0)


def test_it_verifies(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    main(["store", "verify", str(store.path)])
    assert "damaged" not in capsys.readouterr().err


def test_without_pictures_there_is_nothing_to_see(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="Nothing is left for bc to see"):
        train(config(store, tmp_path / "run", "bc", DataConfig(batch_size=8)))
    with pytest.raises(FlywheelError, match="or learn from pictures"):
        Columns.open(store, store.snapshot())

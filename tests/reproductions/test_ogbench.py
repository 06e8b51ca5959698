"""The data repeats bit for bit, reads as OGBench's own, and a row of the table comes of one command."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.tasks.ogbench import GOALS
from reproductions.ogbench.__main__ import Config, reproduce
from reproductions.ogbench.data import DataSet, content, export, generate
from reproductions.ogbench.published import ALGORITHMS, DATA_SETTINGS, PUBLISHED, published, settings
from reproductions.ogbench.results import RESULTS, Result, load, table
from reproductions.ogbench.scripts import STEPS, navigate, play

pytestmark = pytest.mark.skipif(find_spec("ogbench") is None, reason="needs ogbench")
MAZE = "pointmaze-medium-navigate"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of a walk through the maze."""
    root = tmp_path_factory.mktemp("data")
    generate(MAZE, root, episodes=3)
    return root


def result(**changes: object) -> Result:
    values = {
        "dataset": "scene-play",
        "algorithm": "gciql",
        "code": "flywheel",
        "seed": 0,
        "updates": 10,
        "batch_size": 2,
        "hidden": (8, 8),
        "settings": {"alpha": 1.0},
        "successes": (50, 25, 0, 0, 0),
        "episodes_per_goal": 50,
        "training_seconds": 2.0,
        "evaluation_seconds": 1.0,
        "data": {"episodes": 1000, "sha256": "x"},
        "command": "",
        "machine": {},
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("script", "environment"), [(navigate, "pointmaze-medium"), (play, "cube-single"), (play, "scene")])
def test_an_episode_follows_from_its_seed_alone(script: object, environment: str) -> None:
    run = script(environment)  # type: ignore[operator]
    first = run(4)
    run(5)
    for own, again in zip(first, run(4), strict=True):
        np.testing.assert_array_equal(own, again)
    assert (len(first[0]), len(first[1])) == (STEPS + 1, STEPS)
    assert not np.array_equal(first[1], run(6)[1])


def test_a_walk_goes_through_the_maze(root: Path) -> None:
    episodes, _ = content(MAZE, generate(MAZE, root, episodes=3), episodes=3)
    for episode in episodes:
        states = episode.observation["state"]
        cells = {tuple(cell) for cell in np.round(states / 4).astype(int)}
        assert len(cells) > 5
        assert np.abs(np.diff(states, axis=0)).max() < 0.5
        assert not episode.is_terminal.any()


def test_generating_again_adds_nothing_and_gives_the_same_content(root: Path, tmp_path: Path) -> None:
    store = generate(MAZE, root, episodes=3)
    assert [row.seed for row in store.rows()] == [0, 1, 2]
    again = generate(MAZE, tmp_path, episodes=2)
    assert content(MAZE, again, 2)[1] == content(MAZE, store, 2)[1]


def test_ogbench_reads_what_is_exported(root: Path, tmp_path: Path) -> None:
    from ogbench.utils import load_dataset

    store = generate(MAZE, root, episodes=3)
    digest = export(MAZE, store, tmp_path / "maze.npz", episodes=3)
    data = load_dataset(tmp_path / "maze.npz")
    episodes, expected = content(MAZE, store, 3)
    assert digest == expected
    states = [episode.observation["state"] for episode in episodes]
    np.testing.assert_array_equal(data["observations"], np.concatenate([state[:-1] for state in states]))
    np.testing.assert_array_equal(data["next_observations"], np.concatenate([state[1:] for state in states]))
    np.testing.assert_array_equal(data["actions"], np.concatenate([episode.action[:-1] for episode in episodes]))
    assert list(np.flatnonzero(data["terminals"])) == [STEPS * n - 1 for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "algorithm", ["gcbc", *(pytest.param(name, marks=pytest.mark.slow) for name in (*ALGORITHMS[1:], "actionable_models"))]
)
def test_one_command_gives_a_row_once(root: Path, tmp_path: Path, algorithm: str) -> None:
    config = Config(
        MAZE,
        algorithm,
        updates=5,
        batch_size=8,
        hidden=(8, 8),
        episodes=3,
        per_goal=1,
        root=tmp_path,
        results=tmp_path / "results",
    )
    (tmp_path / "data").symlink_to(root)
    (row,) = reproduce(config)
    assert row.data["sha256"] == content(MAZE, generate(MAZE, root, episodes=3), 3)[1]
    assert row.episodes == GOALS
    assert load(tmp_path / "results") == reproduce(config) == [row]
    assert f"| {published(MAZE, algorithm)} |" in table([row])


def test_seeds_are_pooled_and_budgets_kept_apart() -> None:
    results = [result(), result(seed=1, successes=(50, 50, 0, 0, 0)), result(updates=20), result(code="jax")]
    lines = table(results).splitlines()[2:]
    assert len(lines) == 3
    assert "35 (31 to 39, 500) | 30%, 40% | 5 | 51 ± 4" in lines[0]


def test_results_are_kept_as_they_are(tmp_path: Path) -> None:
    kept = result(training_seconds=None)
    kept.save(tmp_path)
    assert load(tmp_path) == [kept]
    assert "| - |" in table([kept])


def test_checked_in_results_say_where_they_come_from() -> None:
    for row in load(RESULTS):
        assert (RESULTS / row.file_name).exists()
        assert row.command.startswith("python -m reproductions.ogbench")
        assert len(row.data["sha256"]) == 64
        assert row.machine["code"]
        assert len(row.successes) == GOALS
        assert row.episodes_per_goal == (10 if row.dataset.startswith("visual-") else 50)


def test_settings_fit_the_agents() -> None:
    from flywheel.training.train import algorithm_class

    for dataset in PUBLISHED:
        for algorithm in ALGORITHMS:
            own = {key: value for key, value in settings(dataset, algorithm).items() if key not in DATA_SETTINGS}
            dataclasses.replace(algorithm_class(algorithm).Config(), **own)  # type: ignore[type-var]
    assert published("scene-play", "actionable_models") == "-"


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="There is no data set 'scene-navigate'"):
        DataSet.of("scene-navigate")
    with pytest.raises(FlywheelError, match="did you mean 'gciql'"):
        reproduce(Config("scene-play", "gcql", root=tmp_path, results=tmp_path))
    with pytest.raises(FlywheelError, match="no agent 'actionable_models'"):
        reproduce(Config("scene-play", "actionable_models", code="jax", root=tmp_path, results=tmp_path))

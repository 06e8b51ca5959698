import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect, dataset_name
from flywheel.rollout.rollout import EVALUATION_SEED, rollout
from flywheel.tasks.env import make_env

ROOT = Path(__file__).parents[2]


def config(store: Path, **settings: object) -> CollectConfig:
    return replace(CollectConfig("lift", robot="fake", store=store, episodes=6, processes=1), **settings)  # type: ignore[arg-type]


def seeds(folder: Path) -> list[int]:
    return sorted(episode.metadata.seed for episode in EpisodeStore.open(folder).episodes())


def test_what_happened_is_what_is_stored(tmp_path: Path) -> None:
    result = collect(config(tmp_path))
    episodes = list(EpisodeStore.open(result.dataset).episodes())
    assert (result.stored, result.skipped) == (6, 0)
    assert result.successes == sum(episode.metadata.success for episode in episodes)
    assert result.steps == sum(episode.transitions for episode in episodes)
    stored = next(episode for episode in episodes if episode.metadata.seed == 4)
    with make_env("lift", "fake") as env:
        again = rollout(env, env.task.expert(), 4)
    np.testing.assert_array_equal(stored.action, again.action)
    np.testing.assert_array_equal(stored.observation["eef_pos"], again.observation["eef_pos"])


def test_parallel_processes_store_every_seed_once(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = collect(config(tmp_path, processes=2, episodes=12), lambda done, total: calls.append((done, total)))
    assert calls == [(done, 12) for done in range(13)]
    assert seeds(result.dataset) == list(range(12))


def test_started_again_it_goes_on(tmp_path: Path) -> None:
    collect(config(tmp_path, episodes=4))
    result = collect(config(tmp_path, episodes=6))
    assert (result.stored, result.skipped) == (2, 4)
    assert seeds(result.dataset) == list(range(6))


def test_another_experiment_is_more_data_in_the_same_dataset(tmp_path: Path) -> None:
    collect(config(tmp_path, episodes=2))
    result = collect(config(tmp_path, episodes=2, experiment="more", policy="random", safe=True))
    assert seeds(result.dataset) == [0, 0, 1, 1]
    agents = {episode.metadata.agent_id for episode in EpisodeStore.open(result.dataset).episodes()}
    assert agents == {"lift-expert", "random"}


@pytest.mark.parametrize("settings", [{"safe": True}, {"explore": True}, {"safe": True, "explore": True}])
def test_other_settings_make_other_episodes(tmp_path: Path, settings: dict[str, bool]) -> None:
    collect(config(tmp_path, episodes=2))
    result = collect(config(tmp_path, episodes=2, **settings))
    assert (result.stored, result.skipped) == (2, 0)
    again = collect(config(tmp_path, episodes=2, **settings))
    assert (again.stored, again.skipped) == (0, 2)


@pytest.mark.parametrize(
    "settings", [{"first_seed": EVALUATION_SEED}, {"first_seed": EVALUATION_SEED - 3}, {"first_seed": -1}, {"episodes": 0}]
)
def test_evaluation_seeds_and_nonsense_are_refused(tmp_path: Path, settings: dict[str, int]) -> None:
    with pytest.raises(FlywheelError, match=r"seeds|at least one"):
        collect(config(tmp_path, **settings))
    assert not list(tmp_path.iterdir())


def test_a_missing_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="no policy 'nowhere'"):
        collect(config(tmp_path, policy="nowhere"))


def test_names_are_such_as_tfds_allows() -> None:
    assert dataset_name("sim:UR5e", "lift") == "sim_ur5e_lift"


KILLED = """
import sys
from pathlib import Path
from flywheel.rollout.collect import CollectConfig, collect
if __name__ == "__main__":
    config = CollectConfig("lift", robot="fake", store=Path(sys.argv[1]), episodes=100_000, processes=2)
    collect(config, lambda done, total: print(done, flush=True))
"""


def test_a_killed_collection_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    store = tmp_path / "store"
    command = [sys.executable, str(script), str(store)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    reported = 0
    for line in parent.stdout:
        reported = int(line)
        if reported >= 20:
            break
    os.killpg(parent.pid, signal.SIGKILL)
    parent.communicate()
    found = seeds(store / dataset_name("fake", "lift"))
    assert len(found) == len(set(found)) >= reported
    result = collect(config(store, episodes=max(found) + 1))
    assert seeds(result.dataset) == list(range(max(found) + 1))


def test_a_deleted_episode_is_not_collected_again(tmp_path: Path) -> None:
    config = CollectConfig("lift", robot="fake", store=tmp_path, episodes=2, processes=1)
    store = EpisodeStore.open(collect(config).dataset)
    store.label([store.rows()[0].episode_id], "deleted", True, by="anna")
    assert collect(config).stored == 0
    assert len(store.rows()) == 1

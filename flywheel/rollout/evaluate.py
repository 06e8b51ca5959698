"""Evaluating: the same initial states for every policy, so that two of them can be compared pair by pair."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.policy import Policy
from flywheel.core.specs import Array
from flywheel.datasets.store import EpisodeStore
from flywheel.report.videos import write_video
from flywheel.rollout.evaluation_folder import LOG, claim, load_evaluation, log_line, read_log, save_evaluation, write_json
from flywheel.rollout.goals import Goals, as_json
from flywheel.rollout.policies import check_goals, check_policy, env_for, goal_camera, open_policy, policy_name
from flywheel.rollout.results import EpisodeResult, Evaluation, compare
from flywheel.rollout.rollout import EVALUATION_SEED, LARGEST_SEED, TaskName, rollout
from flywheel.rollout.workers import run_job
from flywheel.tasks.env import Env

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a policy's success on fixed initial states."""

    task: TaskName
    """The task, by name."""
    output: Path
    """The folder for the results and videos; an evaluation that was interrupted goes on there."""
    robot: str = "sim"
    """The robot, by name; ``sim:UR5e`` chooses another simulated arm."""
    policy: str = "expert"
    """Who acts: ``expert``, ``random``, or the path of a trained policy."""
    episodes: int = 100
    """How many episodes, of consecutive seeds."""
    first_seed: int = EVALUATION_SEED
    """The seed of the first episode; evaluation seeds lie from 10,000,000 on and are never trained on."""
    goals: Path | None = None
    """An npz file of goal observations, every array (n, ...); episode i aims at goal i modulo n. An array ``seed`` in it,
    as in an evaluation's ends.npz, says from which initial state each goal is known to be reachable: episode i starts there."""
    goal_image: tuple[Path, ...] = ()
    """Pictures of what to reach, in place of `goals`: files, or folders of examples; episode i aims at number i modulo n."""
    goal_episode: str = ""
    """An episode whose picture is to be reached, in place of `goals`: STORE:ID for its end, or STORE:ID:STEP."""
    processes: int = 4
    """How many episodes run at once."""
    safe: bool = False
    """Act through the safety layer."""
    videos: int = 0
    """How many of the first episodes are filmed."""
    cameras: tuple[str, ...] = ()
    """Simulated cameras to observe beside those that the policy sees, so that `keep_ends` keeps their pictures, too."""
    picture_size: int = 84
    """The height and width of their pictures, in pixels."""
    keep_ends: bool = False
    """Write ends.npz: the last observations of the successful episodes, and their seeds, as goals for others to reach."""
    versus: Path | None = None
    """The folder of another evaluation on the same seeds, to compare with pair by pair."""

    @property
    def seeds(self) -> Sequence[int]:
        """The initial states, in order; raises `FlywheelError` where there are fewer goals with seeds than episodes."""
        seeds = None if (goals := self.wanted) is None else goals.seeds
        if seeds is None:
            return range(self.first_seed, self.first_seed + self.episodes)
        if len(seeds) < self.episodes:
            raise FlywheelError(f"{self.goals} holds {len(seeds)} goals with seeds; ask for that many episodes.")
        return seeds[: self.episodes]

    @cached_property
    def wanted(self) -> Goals | None:
        """The goals to reach; raises `FlywheelError` where they are given in several ways, or cannot be read."""
        if sum(map(bool, (self.goals, self.goal_image, self.goal_episode))) > 1:
            raise FlywheelError("goals, goal-image and goal-episode each say what to reach; give one of them.")
        if self.goal_image:
            return Goals.of_images(self.goal_image, goal_camera(self.policy))
        if self.goal_episode:
            return _frame(self.goal_episode)
        return None if self.goals is None else Goals.load(self.goals)

    def env(self) -> Env:
        """Where the policy acts; raises `FlywheelError` where it cannot."""
        cameras = dict.fromkeys(self.cameras, (self.picture_size, self.picture_size))
        return env_for(self.policy, self.task, self.robot, safe=self.safe, cameras=cameras)


def evaluate(config: EvaluateConfig, on_progress: Progress = lambda done, total: None) -> Evaluation:
    """Run the episodes that `config.output` does not hold yet, and return all of them.

    What it leaves in the folder is described in `evaluation_folder`. Raises `FlywheelError` for training seeds, names that do
    not exist, or an output folder that holds another evaluation or episodes without the videos or ends that are asked for.
    """
    if config.episodes < 1 or min(seeds := config.seeds) < EVALUATION_SEED or max(seeds) > LARGEST_SEED:
        raise FlywheelError(f"An evaluation needs at least one episode, and seeds from {EVALUATION_SEED} on, to {LARGEST_SEED}.")
    if config.processes < 1 or config.videos < 0:
        raise FlywheelError("An evaluation needs at least one process, and films no fewer than 0 videos.")
    if config.versus is not None:
        load_evaluation(config.versus)
    env = config.env()
    check_policy(config.policy, env)
    check_goals(config.policy, goals=config.wanted, set_by_task=env.task.sets_goals)
    folder, identity = config.output, _identity(config)
    claim(folder, identity)
    found = {result.seed: result for result in read_log(folder) if result.seed in seeds}
    _check_found(config, seeds, found)
    missing = [seed for seed in seeds if seed not in found]
    on_progress(len(found), len(seeds))
    with (folder / LOG).open("a") as log, closing(run_job(EvaluateJob(config), missing, config.processes)) as results:
        for result in results:
            log.write(log_line(result))
            log.flush()
            found[result.seed] = result
            on_progress(len(found), len(seeds))
    evaluation = Evaluation(config.task, config.robot, identity["policy"], tuple(found[seed] for seed in seeds))
    save_evaluation(folder, evaluation)
    if config.keep_ends:
        _keep_ends(folder / "ends.npz", evaluation)
    if config.versus is not None:
        write_json(folder / "comparison.json", compare(evaluation, load_evaluation(config.versus)).to_json())
    return evaluation


@dataclass(frozen=True)
class EvaluateJob:
    """What one process does."""

    config: EvaluateConfig

    @contextmanager
    def open(self) -> Iterator[Callable[[int], EpisodeResult]]:
        """Yields the function that runs the episode of a seed."""
        config = self.config
        goals = config.wanted
        index = {seed: number for number, seed in enumerate(config.seeds)}
        with (
            config.env() as env,
            open_policy(config.policy, env) as policy,
        ):

            def work(seed: int) -> EpisodeResult:
                goal = None if goals is None else goals.at(index[seed])
                if index[seed] < config.videos:
                    return _filmed(config, env, policy, seed, goal)
                return _result(config, rollout(env, policy, seed, goal=goal))

            yield work


def _filmed(config: EvaluateConfig, env: Env, policy: Policy, seed: int, goal: dict[str, Array] | None) -> EpisodeResult:
    """A missing graphics library costs the video, not the evaluation."""
    frames: list[Array] = []
    try:
        env.reset(seed=seed)
        env.render()
    except FlywheelError as error:
        return replace(_result(config, rollout(env, policy, seed, goal=goal)), video_problem=str(error))
    result = _result(config, rollout(env, policy, seed, goal=goal, frames=frames))
    video = f"videos/{seed}.mp4"
    write_video(config.output / video, frames, env.robot.action_spec.rate)
    return replace(result, video=video)


def _result(config: EvaluateConfig, episode: Episode) -> EpisodeResult:
    about = episode.metadata
    kept = config.keep_ends and about.success
    end = {key: as_json(value[-1]) for key, value in episode.observation.items()} if kept else None
    return EpisodeResult(about.seed, about.success, episode.transitions, episode.episode_return, about.agent_id, end=end)


def _check_found(config: EvaluateConfig, seeds: Sequence[int], found: Mapping[int, EpisodeResult]) -> None:
    """Refuse what can only be had while an episode runs, and what is done is not run again: on an arm it would end otherwise."""
    filmed = [found[seed] for seed in seeds[: config.videos] if seed in found]
    if not all(result.video or result.video_problem for result in filmed):
        raise FlywheelError(f"{config.output} holds episodes that were not filmed; give another --output to film them.")
    if config.keep_ends and any(result.success and result.end is None for result in found.values()):
        raise FlywheelError(f"{config.output} holds episodes whose ends were not kept; give another --output to keep them.")


def _keep_ends(path: Path, evaluation: Evaluation) -> None:
    ends = [(result.seed, result.end) for result in evaluation.results if result.end is not None]
    if not ends:
        raise FlywheelError("No episode succeeded, so there are no goals to keep; evaluate more episodes or another policy.")
    Goals.of(ends).save(path)


def _identity(config: EvaluateConfig) -> dict[str, Any]:
    identity = {
        "task": config.task,
        "robot": config.robot,
        "policy": policy_name(config.policy),
        "safe": config.safe,
        "goals": "" if config.wanted is None else config.wanted.hash,
    }
    return identity | ({"cameras": list(config.cameras), "picture_size": config.picture_size} if config.cameras else {})


def _frame(place: str) -> Goals:
    """The goal that ``STORE:ID`` or ``STORE:ID:STEP`` names."""
    store, _, rest = place.partition(":")
    episode, _, step = rest.partition(":")
    if not episode or not re.fullmatch(r"(-?\d+)?", step):
        raise FlywheelError(f"'{place}' names no episode's picture; write STORE:ID or STORE:ID:STEP.")
    return Goals.of_frame(EpisodeStore.open(Path(store)).read(episode), int(step or -1))

"""Evaluating: the same initial states for every policy, so that two of them can be compared pair by pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.policy import Policy
from flywheel.core.specs import Array
from flywheel.report.videos import write_video
from flywheel.rollout.goals import Goals
from flywheel.rollout.policies import check_goals, check_policy, open_policy, policy_name
from flywheel.rollout.rollout import EVALUATION_SEED, TaskName, rollout
from flywheel.rollout.statistics import PairedDifference, mcnemar_exact, paired_difference, wilson
from flywheel.rollout.workers import run_job
from flywheel.tasks.env import Env, make_env

Progress = Callable[[int, int], None]

_SUMMARY = "evaluation.json"


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
    processes: int = 4
    """How many episodes run at once."""
    safe: bool = False
    """Act through the safety layer."""
    videos: int = 0
    """How many of the first episodes are filmed."""
    keep_ends: bool = False
    """Write ends.npz: the last observations of the successful episodes, and their seeds, as goals for others to reach."""
    versus: Path | None = None
    """The folder of another evaluation on the same seeds, to compare with pair by pair."""

    @property
    def seeds(self) -> Sequence[int]:
        """The initial states, in order; raises `FlywheelError` where there are fewer goals with seeds than episodes."""
        seeds = None if self.goals is None else Goals.load(self.goals).seeds
        if seeds is None:
            return range(self.first_seed, self.first_seed + self.episodes)
        if len(seeds) < self.episodes:
            raise FlywheelError(f"{self.goals} holds {len(seeds)} goals with seeds; ask for that many episodes.")
        return seeds[: self.episodes]


@dataclass(frozen=True)
class EpisodeResult:
    """One episode of an evaluation."""

    seed: int
    success: bool
    length: int
    """The number of actions."""
    episode_return: float
    agent_id: str
    video: str = ""
    """The video's path within the output folder."""
    video_problem: str = ""
    """Why there is no video although one was asked for."""
    end: dict[str, Any] | None = None
    """The last observation as lists, where ends are kept and the episode succeeded."""


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, ordered by seed."""

    task: str
    robot: str
    policy: str
    """``expert``, ``random``, or the checkpoint's hash."""
    results: tuple[EpisodeResult, ...]

    @property
    def successes(self) -> int:
        """How many episodes succeeded."""
        return sum(result.success for result in self.results)

    @property
    def success(self) -> float:
        """The success rate."""
        return self.successes / len(self.results)

    @property
    def ci95(self) -> tuple[float, float]:
        """The Wilson 95 % interval of the success rate."""
        return wilson(self.successes, len(self.results))

    @property
    def mean_length(self) -> float:
        """The mean number of actions per episode."""
        return float(np.mean([result.length for result in self.results]))

    @property
    def mean_return(self) -> float:
        """The mean undiscounted return."""
        return float(np.mean([result.episode_return for result in self.results]))

    def to_json(self) -> dict[str, Any]:
        """The summary and every episode."""
        return {
            "task": self.task,
            "robot": self.robot,
            "policy": self.policy,
            "success": self.success,
            "ci95": list(self.ci95),
            "episodes": len(self.results),
            "mean_length": self.mean_length,
            "mean_return": self.mean_return,
            "results": [asdict(result) for result in self.results],
        }


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same seeds: the 2 x 2 table and what follows from it."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def count(self) -> int:
        """The number of pairs."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def p_value(self) -> float:
        """McNemar's exact test that A and B succeed equally often."""
        return mcnemar_exact(self.only_a, self.only_b)

    @property
    def difference(self) -> PairedDifference:
        """A's success rate minus B's, with its 95 % interval."""
        return paired_difference(self.only_a, self.only_b, self.count)

    def to_json(self) -> dict[str, Any]:
        """The table, the test and the interval."""
        return {**asdict(self), "episodes": self.count, "p_value": self.p_value, **asdict(self.difference)}


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Pair two evaluations by seed; raises `FlywheelError` for other tasks or robots, or no common seed."""
    if (a.task, a.robot) != (b.task, b.robot):
        raise FlywheelError(f"{a.task} on {a.robot} cannot be compared with {b.task} on {b.robot}; evaluate both on the same.")
    others = {result.seed: result.success for result in b.results}
    pairs = [(result.success, others[result.seed]) for result in a.results if result.seed in others]
    if not pairs:
        raise FlywheelError("The two evaluations have no seed in common; evaluate both on the same seeds.")
    cells = ((True, True), (True, False), (False, True), (False, False))
    return Comparison(*(pairs.count(cell) for cell in cells))


def evaluate(config: EvaluateConfig, on_progress: Progress = lambda done, total: None) -> Evaluation:
    """Run the episodes that `config.output` does not hold yet, and return all of them.

    Every finished episode is one line of ``episodes.jsonl``; the summary is ``evaluation.json``, and ``comparison.json`` where
    `config.versus` is given. Raises `FlywheelError` for
    training seeds, names that do not exist, or an output folder that holds another evaluation.
    """
    if config.episodes < 1 or min(seeds := config.seeds) < EVALUATION_SEED:
        raise FlywheelError(f"An evaluation needs at least one episode, and seeds from {EVALUATION_SEED} on.")
    if config.processes < 1 or config.videos < 0:
        raise FlywheelError("An evaluation needs at least one process, and films no fewer than 0 videos.")
    if config.versus is not None:
        load_evaluation(config.versus)
    check_policy(config.policy, make_env(config.task, config.robot))
    check_goals(config.policy, given=config.goals is not None)
    policy = policy_name(config.policy)
    _claim(config, policy)
    log = config.output / "episodes.jsonl"
    found = {result.seed: result for result in _read(log) if result.seed in seeds}
    missing = [seed for seed in seeds if seed not in found]
    on_progress(len(found), len(seeds))
    with log.open("a") as file, closing(run_job(EvaluateJob(config), missing, config.processes)) as results:
        for result in results:
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()
            found[result.seed] = result
            on_progress(len(found), len(seeds))
    evaluation = Evaluation(config.task, config.robot, policy, tuple(found[seed] for seed in seeds))
    _write_json(config.output / _SUMMARY, evaluation.to_json())
    if config.keep_ends:
        _keep_ends(config.output / "ends.npz", evaluation)
    if config.versus is not None:
        _write_json(config.output / "comparison.json", compare(evaluation, load_evaluation(config.versus)).to_json())
    return evaluation


def load_evaluation(folder: Path) -> Evaluation:
    """The evaluation that a folder holds; raises `FlywheelError` when it holds none that is finished."""
    try:
        data = json.loads((folder / _SUMMARY).read_text())
        results = tuple(EpisodeResult(**result) for result in data["results"])
        return Evaluation(data["task"], data["robot"], data["policy"], results)
    except (OSError, ValueError, KeyError, TypeError):
        raise FlywheelError(f"{folder} holds no finished evaluation; run flywheel eval --output {folder} first.") from None


@dataclass(frozen=True)
class EvaluateJob:
    """What one process does."""

    config: EvaluateConfig

    @contextmanager
    def open(self) -> Iterator[Callable[[int], EpisodeResult]]:
        """Yields the function that runs the episode of a seed."""
        config = self.config
        goals = None if config.goals is None else Goals.load(config.goals)
        index = {seed: number for number, seed in enumerate(config.seeds)}
        with make_env(config.task, config.robot, safe=config.safe) as env, open_policy(config.policy, env) as policy:

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
    end = {key: value[-1].tolist() for key, value in episode.observation.items()} if kept else None
    return EpisodeResult(about.seed, about.success, episode.transitions, episode.episode_return, about.agent_id, end=end)


def _keep_ends(path: Path, evaluation: Evaluation) -> None:
    ends = [(result.seed, result.end) for result in evaluation.results if result.end is not None]
    if not ends:
        raise FlywheelError("No episode succeeded, so there are no goals to keep; evaluate more episodes or another policy.")
    Goals.of(ends).save(path)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(data, indent=1).encode())


def _claim(config: EvaluateConfig, policy: str) -> None:
    """Say in the output folder what is evaluated there, and refuse one that holds something else."""
    goals = "" if config.goals is None else Goals.load(config.goals).hash
    wanted = {"task": config.task, "robot": config.robot, "policy": policy, "safe": config.safe, "goals": goals}
    path = config.output / "identity.json"
    if not path.exists():
        _write_json(path, wanted)
    elif json.loads(path.read_text()) != wanted:
        raise FlywheelError(
            f"{config.output} holds another evaluation (policy, task, robot, goals or safety differ); give another folder."
        )


def _read(log: Path) -> list[EpisodeResult]:
    """The episodes that were finished; a line torn by a kill is cut off, so that the next one starts on its own."""
    if not log.exists():
        return []
    whole, _, torn = log.read_bytes().rpartition(b"\n")
    if torn:
        write_atomically(log, whole + b"\n" if whole else b"")
    return [EpisodeResult(**json.loads(line)) for line in whole.splitlines()]

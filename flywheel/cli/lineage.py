"""flywheel lineage ID: where an episode, a policy or a snapshot comes from, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.tree import Tree

from flywheel.cli.console import console, parse_config
from flywheel.cli.store_common import time_text
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.datasets.lineage import PolicyRecord
from flywheel.datasets.lineage_graph import LineageGraph, Maker
from flywheel.datasets.snapshot import SNAPSHOT_FILE, Snapshot
from flywheel.datasets.store import EpisodeStore

_POLICY_FILE = "policy.safetensors"
_DIGITS = 12
"""Of a hash: enough to tell policies apart and to be asked for."""


@dataclass(frozen=True)
class LineageConfig:
    """What to follow, and in which store."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """An episode, a checkpoint or a snapshot: its name or the beginning of it, a policy or snapshot file, or a run folder."""
    store: Path | None = None
    """The store that remembers it; for a run folder the one that it learned from, else ./data."""


def run(arguments: list[str]) -> None:
    """Print both chains as trees."""
    config = parse_config(LineageConfig, arguments, "flywheel lineage", __doc__)
    path = Path(config.id)
    store = EpisodeStore.open(config.store or _store_of(path) or Path("data"))
    graph = LineageGraph(store)
    kind, name = _take_in(graph, path) or _find(graph, config.id)
    trees = _Trees(graph)
    past, future = Tree("[bold]Where it comes from[/bold]"), Tree("[bold]What came of it[/bold]")
    trees.past(past, kind, name)
    trees.seen.clear()
    trees.future(future, kind, name)
    console.print(past)
    console.print(future)


class _Trees:
    """Writes the two chains into trees; what was written once is not followed again."""

    def __init__(self, graph: LineageGraph) -> None:
        self.graph = graph
        self.seen: set[str] = set()

    def past(self, tree: Tree, kind: str, name: str) -> None:
        """What a thing was made from."""
        branch = tree.add(self._text(kind, name))
        if name in self.seen:
            return
        self.seen.add(name)
        match kind:
            case "episode":
                row = self.graph.rows[name]
                self._maker(branch, Maker(row.agent_id, row.policy_checkpoint))
            case "policy":
                record = self.graph.policy(name)
                if record is None or not record.snapshot:
                    branch.add("trained on an unknown snapshot")
                else:
                    self.past(branch, "snapshot", record.snapshot)
                if record is not None and record.parent:
                    self.past(branch.add("training started from"), "policy", record.parent)
            case _:
                for maker, count in sorted(self.graph.makers(name).items(), key=lambda item: -item[1]):
                    self._maker(branch, maker, f"{count:,} episodes ")

    def future(self, tree: Tree, kind: str, name: str) -> None:
        """What was made from a thing."""
        branch = tree.add(self._text(kind, name))
        if name in self.seen:
            return
        self.seen.add(name)
        match kind:
            case "episode":
                self._nexts(branch, "snapshot", self.graph.holding([name]), "no snapshot that was trained on holds it")
            case "snapshot":
                self._nexts(branch, "policy", self.graph.trained_on(name), "no policy is known to be trained on it")
            case _:
                for other in self.graph.started_from(name):
                    self.future(branch.add("training started from it"), "policy", other)
                made = self.graph.made_by(name)
                succeeded = sum(row.success for row in made)
                episodes = branch.add(
                    f"made {len(made):,} episodes, {succeeded:,} of them successes" if made else "made no episodes"
                )
                self._nexts(episodes, "snapshot", self.graph.holding([row.episode_id for row in made]), "")

    def _nexts(self, branch: Tree, kind: str, names: list[str], none: str) -> None:
        for name in names:
            self.future(branch, kind, name)
        if not names and none:
            branch.add(none)

    def _maker(self, branch: Tree, maker: Maker, before: str = "") -> None:
        if maker.checkpoint:
            self.past(branch.add(f"{before}made by {escape(maker.agent_id)}"), "policy", maker.checkpoint)
        else:
            branch.add(f"{before}made by {escape(maker.agent_id) or 'an unknown agent'}")

    def _text(self, kind: str, name: str) -> str:
        again = " (see above)" if name in self.seen else ""
        about = {"episode": self._episode, "policy": self._policy, "snapshot": self._snapshot}[kind](name)
        short = name if kind == "episode" else name[:_DIGITS]
        return f"{kind} [bold]{escape(short)}[/bold]: {escape(about)}{again}"

    def _episode(self, name: str) -> str:
        row = self.graph.rows[name]
        words = [row.task, row.robot, "success" if row.success else "no success", "invalid" if row.invalid else ""]
        words += ["deleted" if row.deleted else "", time_text(row.started_at_ns), row.source]
        return ", ".join(filter(None, words))

    def _policy(self, name: str) -> str:
        record = self.graph.policy(name)
        if record is None:
            return "unknown here"
        words = [record.algorithm, record.task, f"{record.updates:,} updates" if record.updates else "", record.run]
        return ", ".join(filter(None, [*words, record.code_version and f"code {record.code_version}"]))

    def _snapshot(self, name: str) -> str:
        members = self.graph.members(name)
        return "its episodes are unknown here" if members is None else f"{len(members):,} episodes"


def _take_in(graph: LineageGraph, path: Path) -> tuple[str, str] | None:
    """Take in what a policy's file, a snapshot's or a run folder tells; returns its kind and name, or None if there is none."""
    found = None
    if (file := _snapshot_file(path)) is not None:
        graph.add_snapshot(snapshot := Snapshot.load(file))
        found = "snapshot", snapshot.hash
    if (file := _policy_file(path)) is not None:
        graph.add_policy(record := _record(file))
        found = "policy", record.checkpoint
    return found


def _find(graph: LineageGraph, name: str) -> tuple[str, str]:
    """What a name stands for: its kind and its whole name."""
    known = graph.known()
    found = [key for key in known if key == name] or [key for key in known if name and key.startswith(name)]
    if len(found) == 1:
        return known[found[0]], found[0]
    if found:
        few = ", ".join(f"{known[key]} {key}" for key in sorted(found)[:3])
        raise FlywheelError(f"{len(found)} things begin with '{name}' ({few}, ...); give more of it.")
    raise FlywheelError(f"There is no episode, policy or snapshot '{name}' in the store; give another --store, or a file.")


def _policy_file(path: Path) -> Path | None:
    file = path / _POLICY_FILE if path.is_dir() else path
    return file if file.is_file() and file.suffix == ".safetensors" else None


def _snapshot_file(path: Path) -> Path | None:
    file = path.with_name(SNAPSHOT_FILE) if path.suffix == ".safetensors" else path / SNAPSHOT_FILE if path.is_dir() else path
    return file if file.is_file() else None


def _record(file: Path) -> PolicyRecord:
    # torch takes seconds, and only a file needs it
    from flywheel.policy import LearnedPolicy
    from flywheel.training.lineage import policy_record

    return policy_record(LearnedPolicy.load(file), file.parent)


def _store_of(path: Path) -> Path | None:
    """The store that a run learned from, if the path is in its folder."""
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not (folder / "config.yaml").is_file():
        return None
    store = configs.load_dict(folder / "config.yaml").get("store")
    return Path(store) if isinstance(store, str) else None

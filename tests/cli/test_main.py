"""The command line: help that teaches; a user's mistake gets one sentence and an exit code, and leaves nothing half-written."""

from __future__ import annotations

import json
import resource
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.cli.main import COMMANDS, main
from flywheel.datasets.store import EpisodeStore
from tests.point import SCHEMA, episode, make_store

FAKE = ("--robot", "fake", "--processes", "1")
SHORT = ("--updates", "2", "--data.batch-size", "8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab with two robots: `arm` and `point` are stores, `arm-run` and `point-run` policies trained on them."""
    lab = tmp_path_factory.mktemp("lab")
    main(["collect", "lift", *FAKE, "--store", f"{lab}/arm", "--episodes", "4"])
    make_store(lab / "point", range(6))
    for robot in ("arm", "point"):
        main(["train", "bc", "--store", f"{lab}/{robot}", "--output", f"{lab}/{robot}-run", *SHORT])
    return lab


@pytest.fixture
def here(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the lab to work in, as the current folder."""
    shutil.copytree(lab, tmp_path / "lab")
    monkeypatch.chdir(tmp_path / "lab")
    return Path()


def stops(arguments: str, capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Run a command that must stop with an exit code, and return what it says on standard error, unwrapped."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    error = capsys.readouterr().err
    assert exit_.value.code == code, error
    assert "Traceback" not in error
    return error.strip()


def fails(arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with one sentence, and return it."""
    error = stops(arguments, capsys, 1)
    assert error.startswith("error: ")
    assert "\n" not in error
    return error


def files(folder: Path = Path()) -> dict[Path, int]:
    """Every path below a folder and when it was changed, but for the caches that reading makes."""
    derived = (".columns", ".meta", ".lock")
    found = (path for path in folder.rglob("*") if not set(path.parts) & set(derived))
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow past `size` bytes: the kernel refuses, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    main(arguments)
    shown = " ".join(capsys.readouterr().out.split())
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in shown


_WITH_SUBCOMMANDS = ["store info", "store ls", "store show", "store verify", "robot check"]
_OF_ALGORITHMS = ["train iql", "train cql", "train bc", "train actionable_models"]


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name != "train"), *_WITH_SUBCOMMANDS, *_OF_ALGORITHMS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert f"flywheel {command}" in shown
    assert "--help" in shown


def test_finetune_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    assert "rewards, from a pretrained policy" in capsys.readouterr().out


def test_train_explains_itself_without_an_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    shown = capsys.readouterr().out
    assert "Algorithms: actionable_models, awac, awr, bc," in shown
    assert "--config RUN/config.yaml" in shown


@pytest.mark.parametrize("command", ["collect", "eval", "deploy"])
def test_the_task_is_the_first_word(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "TASK" in stops(command, capsys, 2)


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("colect", "'collect'"),
        ("store infoo arm", "'info'"),
        ("robot chek fake", "'check'"),
        ("train bc --store arm --output run --updatess 2", "--updates"),
    ],
)
def test_a_call_that_cannot_be_read_gets_the_nearest_word(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, suggestion: str
) -> None:
    before = files()
    assert suggestion in stops(arguments, capsys, 2)
    assert files() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train iqll --store arm --output run", "did you mean 'iql'"),
        ("collect lifft --store arm", "did you mean 'lift'"),
        ("eval lifft --output e", "did you mean 'lift'"),
        ("collect lift --robot fakke --store arm", "did you mean 'fake'"),
        ("collect lift --robot sim:UR55e --store arm", "did you mean 'UR5e'"),
        ("collect lift --robot fake:UR5e --store arm", "There is no variant of robot fake"),
        ("robot check fakee", "did you mean 'fake'"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    before = files()
    assert sentence in fails(arguments, capsys)
    assert files() == before


@pytest.mark.parametrize(
    "arguments",
    ["store info none", "store ls none", "store show none x", "store verify none"],
)
def test_a_missing_store(here: Path, capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    before = files()
    assert "There is no store at none" in fails(arguments, capsys)
    assert files() == before


def test_training_from_a_missing_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no store at none" in fails("train bc --store none --output run", capsys)
    assert not (here / "run/policy.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("eval lift {fake} --policy point-run --output e", "was trained on other observations"),
        ("eval stack {fake} --policy arm-run --output e", "it sees 'cube_pos' as float32 (3,) m, and the robot does not give it"),
        ("collect lift {fake} --policy point-run --store new", "was trained on other observations"),
        ("deploy lift --robot fake --policy point-run --store new", "was trained on other observations"),
        ("eval lift {fake} --policy none --output e", "There is no policy 'none'"),
        ("eval lift {fake} --policy arm --output e", "There is no policy at arm/policy.safetensors"),
        ("eval lift {fake} --goals none.npz --output e", "none.npz holds no goal observations"),
        ("eval lift {fake} --versus none --output e", "none holds no finished evaluation"),
        ("eval lift {fake} --episodes -1 --output e", "at least one episode"),
        ("eval lift {fake} --first-seed 5 --output e", "seeds from 10000000"),
        ("eval lift --robot fake --processes 0 --output e", "at least one process"),
        ("eval lift {fake} --videos -1 --output e", "0 videos"),
        ("collect lift {fake} --episodes -3 --store new", "at least one episode"),
        ("collect lift {fake} --first-seed -3 --store new", "training seeds lie from 0"),
        ("collect lift {fake} --first-seed 9999999 --episodes 2 --store new", "kept for evaluation"),
        ("collect lift --robot fake --processes -2 --store new", "at least one process"),
        ("collect lift {fake} --dataset ../x --store new", "cannot name a store"),
        ("deploy lift --robot fake --episodes 0 --policy arm-run --store new", "at least one episode"),
        ("train bc --store arm --output run --updates 0", "at least 1"),
        ("train bc --store arm --output run --data.batch-size -4", "at least 1"),
        ("train bc --store arm --output run --data.discount 1.5", "discount"),
        ("train --config none.yaml", "There is no configuration at none.yaml"),
        ("train --config arm-run", "There is no configuration at arm-run"),
        ("train --config", "--config needs"),
        ("finetune --store arm --output run", "--initial"),
        ("finetune --store arm --output run --initial arm-run", "--data.task"),
        ("bench --bursts -1", "at least one burst"),
        ("demo --robot fakke --output e", "did you mean 'fake'"),
        ("demo --robot fake --episodes -1 --output e", "episodes must be at least 1, not -1"),
        ("demo --robot fake --offline-updates 0 --output e", "offline_updates must be at least 1, not 0"),
        ("demo --robot fake --rounds -1 --output e", "rounds must be at least 0, not -1"),
        ("store ls arm --limit -1", "--limit is -1"),
        ("store show arm zzz", "There is no episode 'zzz'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    before = files()
    assert sentence in fails(arguments.format(fake=" ".join(FAKE)), capsys)
    assert files() == before


@pytest.mark.parametrize(
    "arguments",
    ["eval lift {fake} --episodes 1 --output file", "collect lift {fake} --store file", "train bc --store arm --output file"],
)
def test_a_file_where_a_folder_is_needed(here: Path, capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    (here / "file").write_text("keep me")
    assert "file" in fails(arguments.format(fake=" ".join(FAKE)), capsys)
    assert (here / "file").read_text() == "keep me"


def test_a_run_folder_with_another_configuration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    for change in ("--updates 2 --data.batch-size 16", "--updates 1 --data.batch-size 8"):
        assert "holds a run with other settings" in fails(f"train bc --store arm --output arm-run {change}", capsys)
    assert files() == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: [1,", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"3", "holds no configuration"),
        (b"name: bc\nalgorithm: {}\nstore: arm\noutput: run\nupdates: many\n", "'updates' cannot be 'many'"),
        (b"name: bc\nalgorithm: {}\noutput: run\n", "lacks ['store']"),
        (b"name: bc\nalgorithm: {}\nstore: arm\noutput: run\ncolour: red\n", "unknown keys ['colour']"),
        (b"name: bc\nalgorithm: 5\nstore: arm\noutput: run\n", "must be a mapping"),
        (b"name: bcc\nalgorithm: {}\nstore: arm\noutput: run\n", "did you mean 'bc'"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    here: Path, capsys: pytest.CaptureFixture[str], content: bytes, sentence: str
) -> None:
    (here / "config.yaml").write_bytes(content)
    assert sentence in fails("train --config config.yaml", capsys)
    assert not (here / "run").exists()


def test_a_task_without_episodes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = fails(f"train bc --store point --output run --data.task lift {' '.join(SHORT)}", capsys)
    assert "no episodes of task 'lift'" in sentence


def test_a_learning_rate_that_explodes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "train iql --store point --output run --updates 50 --data.batch-size 8 --algorithm.learning-rate 1e30"
    assert "non-finite" in fails(arguments, capsys)
    assert not (here / "run" / "policy.safetensors").exists()
    assert not list((here / "run").glob("*.ckpt"))


def test_values_that_no_network_can_learn_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EpisodeStore.create(tmp_path / "absurd", "point", SCHEMA)
    with store.writer() as writer:
        for seed in range(4):
            good = episode(seed)
            reward = np.full_like(good.reward, 3e38)
            writer.append(replace(good, reward=reward))
    arguments = f"train iql --store {tmp_path}/absurd --output {tmp_path}/run --updates 50 --data.batch-size 8"
    assert "non-finite" in fails(arguments, capsys)
    assert not (tmp_path / "run" / "policy.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"all": "long"}', b'{"all": null}'])
def test_damaged_times_of_a_demo(here: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (here / "demo").mkdir()
    (here / "demo/stages.json").write_bytes(content)
    before = files()
    assert "demo/stages.json is damaged; delete it" in fails("demo --robot fake --output demo", capsys)
    assert files() == before


def _header(policy: bytes, **changes: object) -> bytes:
    """The policy file with some entries of its header changed."""
    length = int.from_bytes(policy[:8], "little")
    header = json.loads(policy[8 : 8 + length])
    values = json.loads(header["__metadata__"]["flywheel"]) | changes
    header["__metadata__"]["flywheel"] = json.dumps(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + policy[8 + length :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda policy: b"",
        lambda policy: b"\x10" * 100,
        lambda policy: policy[:-100],
        lambda policy: _header(policy, algorithm="iql"),
        lambda policy: _header(policy, observation=5),
        lambda policy: _header(policy, format=99),
    ],
    ids=["empty", "noise", "torn", "another algorithm's", "no specification", "from another version"],
)
def test_a_damaged_policy(here: Path, capsys: pytest.CaptureFixture[str], damage: object) -> None:
    assert callable(damage)
    policy = here / "arm-run/policy.safetensors"
    policy.write_bytes(damage(policy.read_bytes()))
    before = files()
    assert "is not a readable policy file" in fails("eval lift --robot fake --policy arm-run --output e", capsys)
    assert files() == before


def test_a_full_disk_while_collecting_loses_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = f"collect lift {' '.join(FAKE)} --store new --episodes 200"
    with largest_file(200_000):
        assert "disk is full" in fails(arguments, capsys)
    kept = len(EpisodeStore.open(here / "new").rows())
    assert 0 < kept < 200
    main(["store", "verify", "new"])
    main([*arguments.replace("200", str(kept + 2)).split()])
    assert f"Stored 2 episodes ({kept} were there already)" in " ".join(capsys.readouterr().out.split())


def test_a_full_disk_while_training_leaves_no_half_policy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = f"train bc --store arm --output run {' '.join(SHORT)}"
    with largest_file(100_000):
        fails(arguments, capsys)
    assert not (here / "run/policy.safetensors").exists()
    main(arguments.split())
    assert (here / "run/policy.safetensors").exists()


def test_damage_is_a_plain_warning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EpisodeStore.open(here / "point")
    row = store.rows()[2]
    shard = store.path / row.shard
    data = bytearray(shard.read_bytes())
    data[row.offset + 200] ^= 1
    shard.write_bytes(data)
    shutil.rmtree(store.path / ".columns")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as where no test records them
        main(f"train bc --store point --output run {' '.join(SHORT)}".split())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: Episode {row.episode_id} is left out")
    assert ".py" not in line

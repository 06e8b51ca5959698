"""flywheel store query, label, history, snapshot and diff, and flywheel lineage."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from flywheel.cli.main import main
from flywheel.datasets.store import EpisodeStore
from tests.point import make_store

A, B, C = (f"reach-script-{seed:05d}" for seed in range(3))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EpisodeStore:
    """A store called data, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return make_store(tmp_path / "data", range(4))


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    main(list(arguments))
    return capsys.readouterr().out


def refuses(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    return error


def test_query_lists_prints_ids_and_writes_csv(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    output = says(capsys, "store", "query", "data", "seed < 2")
    assert A in output
    assert C not in output
    assert "2 of 4 episodes." in output
    assert says(capsys, "store", "query", "data", "seed in (1, 0)", "--ids") == f"{A}\n{B}\n"
    (row,) = csv.DictReader(io.StringIO(says(capsys, "store", "query", "data", "seed = 2", "--csv")))
    assert (row["episode"], row["success"], row["task"], row["started"]) == (C, "1", "reach", "")
    assert "did you mean 'seed'?" in refuses(capsys, "store", "query", "data", "sed = 2")
    assert "not both" in refuses(capsys, "store", "query", "data", "true", "--ids", "--csv")


def test_labels_are_given_shown_and_undone(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    says(capsys, "store", "label", "data", A, B, "--success", "no", "--by", "det-2", "--reason", "the cube slipped")
    assert [row.success for row in store.rows()] == [False, False, True, True]
    assert store.history(A)[0].by == "det-2"
    output = says(capsys, "store", "history", "data", A)
    assert [line.split()[:3] for line in output.splitlines() if line.startswith("success")] == [
        ["success", "yes", "point-1"],
        ["success", "no", "det-2"],
    ]
    says(capsys, "store", "label", "data", A, "--undo", "success")
    assert store.rows()[0].success
    assert "as recorded" in says(capsys, "store", "history", "data", A)
    says(capsys, "store", "label", "data", C, "--task", "push", "--invalid")
    assert (store.rows()[2].task, store.rows()[2].invalid) == ("push", True)
    says(capsys, "store", "label", "data", C, "--valid")
    assert not store.rows()[2].invalid


def test_deleted_episodes_are_found_and_restored(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    says(capsys, "store", "label", "data", "--where", "seed > 1", "--delete")
    assert [row.episode_id for row in store.rows()] == [A, B]
    assert C not in says(capsys, "store", "ls", "data")
    assert says(capsys, "store", "query", "data", "true", "--deleted", "--ids").split() == [C, "reach-script-00003"]
    assert f"{C} (deleted)" in says(capsys, "store", "history", "data", C)
    says(capsys, "store", "label", "data", C, "--restore")
    assert store.has(C)


@pytest.mark.parametrize(("part", "expected"), [("1:3", (1, 3)), (":2", (0, 2)), ("1:", (1, 7))])
def test_trim_takes_open_ends(
    store: EpisodeStore, capsys: pytest.CaptureFixture[str], part: str, expected: tuple[int, int]
) -> None:
    says(capsys, "store", "label", "data", B, "--trim", "2:4")
    says(capsys, "store", "label", "data", B, "--trim", part)
    trim = store.rows()[1].trim
    assert trim is not None
    assert trim[:2] == expected
    assert f"{expected[0]}:{expected[1]}" in says(capsys, "store", "history", "data", B)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((A,), "Say what to label"),
        ((A, "--invalid", "--undo", "success"), "Say what to label"),
        (("--invalid",), "Say which episodes"),
        ((A, "--where", "seed = 1", "--invalid"), "Say which episodes"),
        ((A, "--invalid", "--valid"), "cannot be both"),
        ((A, "--delete", "--restore"), "cannot be both"),
        ((A, "--trim", "a:b"), "--trim is 'a:b'"),
        ((A, "--trim", "5:2"), "a trim is a part of 0:"),
        (("reach", "--invalid"), "4 episodes begin with 'reach'"),
        (("reach-scrpt-00001", "--invalid"), "did you mean 'reach-script-00001'?"),
        (("--where", "seed > 99", "--invalid"), "No episode"),
        ((A, "--undo", "trim"), "no 'trim' label to undo"),
    ],
)
def test_wrong_labels_get_one_sentence_and_change_nothing(
    store: EpisodeStore, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refuses(capsys, "store", "label", "data", *arguments)
    assert store.history(A) == []


def test_snapshots_are_kept_and_compared(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(capsys, "store", "snapshot", "data").startswith(store.snapshot().hash)
    first = store.snapshot()
    store.label([A], "success", False, by="anna")
    store.label([B], "deleted", True, by="anna")
    second = says(capsys, "store", "snapshot", "data", "--where", "seed != 3").split()[0]
    assert store.lineage.snapshot(second) == store.snapshot("seed < 3")
    expected = [["added", "0"], ["removed", "2", f"{B},", "reach-script-00003"], ["relabelled", "1", A]]
    for name in (first.hash, first.hash[:6], f"data/point/1.0.0/.meta/snapshots/{first.hash}.json"):
        output = says(capsys, "store", "diff", "data", name, second)
        assert [line.split() for line in output.splitlines()[2:]] == expected
    assert "3 episodes" in says(capsys, "store", "diff", "data", first.hash)
    assert "There is no snapshot 'ffff'" in refuses(capsys, "store", "diff", "data", "ffff")
    assert "No episode" in refuses(capsys, "store", "snapshot", "data", "--where", "false")


def lines(text: str) -> list[str]:
    return [line.strip("│├└─ ") for line in text.splitlines()]


def test_lineage_shows_both_ways(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("--updates", "2", "--data.batch-size", "8")
    main(["train", "bc", "--store", "data", "--output", "run", *short])
    (policy,) = store.lineage.policies().values()
    snapshot = policy.snapshot[:12]
    main(["train", "bc", "--store", "data", "--output", "child", "--initial", "run", *short])
    child = next(name for name, record in store.lineage.policies().items() if record.parent)
    for name in ("run", "run/policy.safetensors", policy.checkpoint, policy.checkpoint[:8]):
        past, _, future = says(capsys, "lineage", name).partition("What came of it")
        assert any(line.startswith(f"policy {policy.checkpoint[:12]}: bc, 2 updates") for line in lines(past))
        assert f"snapshot {snapshot}: 4 episodes" in lines(past)
        assert "4 episodes made by script" in lines(past)
        assert any(line.startswith(f"policy {child[:12]}") for line in lines(future))
    past, _, future = says(capsys, "lineage", A).partition("What came of it")
    assert "made by script" in lines(past)
    assert f"snapshot {snapshot}: 4 episodes" in lines(future)
    assert any(line.startswith(f"policy {child[:12]}") for line in lines(future))
    assert f"snapshot {snapshot}: 4 episodes" in lines(says(capsys, "lineage", snapshot))
    past, _, _ = says(capsys, "lineage", "child").partition("What came of it")
    assert "training started from" in lines(past)


def test_lineage_says_what_is_unknown(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "bc", "--store", "data", "--output", "run", "--updates", "2", "--data.batch-size", "8"])
    for folder in ("snapshots", "policies"):
        for path in (store.path / ".meta" / folder).iterdir():
            path.unlink()
    assert "4 episodes made by script" in lines(says(capsys, "lineage", "run"))
    Path("run/snapshot.json").unlink()
    assert "its episodes are unknown here" in says(capsys, "lineage", "run")
    assert "no snapshot that was trained on holds it" in says(capsys, "lineage", A)
    assert "4 things begin with 'reach'" in refuses(capsys, "lineage", "reach")
    assert "There is no episode, policy or snapshot 'nobody'" in refuses(capsys, "lineage", "nobody")
    assert "There is no store at" in refuses(capsys, "lineage", "nobody", "--store", "elsewhere")


def test_a_user_without_a_name_labels(
    store: EpisodeStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    says(capsys, "store", "label", "data", A, "--success", "yes")
    assert store.history(A)[0].by.startswith("user ")


def test_a_trim_that_one_episode_lacks_labels_none(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    short, *_, long = sorted(store.rows(), key=lambda row: row.length)
    assert short.length < long.length
    names = (long.episode_id, short.episode_id)
    assert "No label was changed" in refuses(capsys, "store", "label", "data", *names, "--trim", f"{short.length}:")
    assert store.history(long.episode_id) == []


def test_how_many_are_deleted_is_told(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.label([A, B], "deleted", True, by="anna")
    assert "1 of 2 deleted episodes." in says(capsys, "store", "query", "data", f"episode = '{A}'", "--deleted")

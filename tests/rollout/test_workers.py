import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.tfrecord import DamageWarning
from flywheel.rollout.workers import run_job
from tests.rollout.jobs import Double, Fail, Slow, Warn

ROOT = Path(__file__).parents[2]

ENDLESS = """
import signal
import sys
from pathlib import Path
from flywheel.rollout.workers import run_job
from tests.rollout.jobs import Slow
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with Ctrl-C ignored
    try:
        for _ in run_job(Slow(Path(sys.argv[1])), range(10**6), 2):
            pass
    except KeyboardInterrupt:
        sys.exit(77)
"""


def test_one_process_is_this_one() -> None:
    results = list(run_job(Double(), range(4), 1))
    assert [value for value, _, _ in results] == [0, 2, 4, 6]
    assert {process for _, process, _ in results} == {os.getpid()}


def test_every_seed_is_done_once_by_other_processes_of_one_thread() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    results = list(run_job(Double(), range(20), 2))
    assert sorted(value for value, _, _ in results) == list(range(0, 40, 2))
    assert os.getpid() not in {process for _, process, _ in results}
    assert {threads for _, _, threads in results} == {"1"}
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_no_seeds_need_no_processes() -> None:
    assert list(run_job(Double(), [], 4)) == []


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("mistake", FlywheelError, "The disk is full; make room."),
        ("disk", OSError, "No space left on device.*a-file"),
        ("kill", FlywheelError, "exit code -9"),
        ("bug", RuntimeError, "ZeroDivisionError: a bug"),
    ],
)
def test_a_failing_process_is_reported(how: str, kind: type[Exception], message: str) -> None:
    done = []
    with pytest.raises(kind, match=message):
        done.extend(run_job(Fail(how), range(8), 2))


def test_a_warning_of_another_process_is_this_ones(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(DamageWarning) as warned:
        assert sorted(run_job(Warn(), range(3), 2)) == [0, 1, 2]
    assert {str(warning.message) for warning in warned} == {f"Record {seed} is damaged." for seed in range(3)}
    assert capfd.readouterr().err == ""


def test_closing_early_closes_every_process(tmp_path: Path) -> None:
    results = run_job(Slow(tmp_path), range(1000), 2)
    next(results)
    results.close()
    closed = {path.name.split("-")[1] for path in tmp_path.glob("closed-*")}
    assert closed >= {path.name.split("-")[1] for path in tmp_path.glob("working-*")}
    assert len(closed) == 2


def wait_for(folder: Path, pattern: str, count: int) -> list[Path]:
    for _ in range(1200):
        if len(found := list(folder.glob(pattern))) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{pattern} did not appear")


def test_ctrl_c_ends_the_processes_cleanly(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(tmp_path, "working-*", 2)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 77
    assert errors == ""
    assert len(list(tmp_path.glob("closed-*"))) == 2


def test_killing_the_parent_ends_the_processes(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment, start_new_session=True)
    wait_for(tmp_path, "working-*", 2)
    parent.kill()
    parent.wait()
    assert len(wait_for(tmp_path, "closed-*", 2)) == 2

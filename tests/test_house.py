"""The house stands: the walls are really checked, the links are there, the lock and the package data can be used by anyone."""

from __future__ import annotations

import re
import tomllib

from tests import walls

PYPROJECT = tomllib.loads((walls.ROOT / "pyproject.toml").read_text())


def test_every_wall_catches_what_breaks_it() -> None:
    result = walls.check(
        planted={
            "flywheel/algorithms/bc.py": "import flywheel.datasets.store",
            "flywheel/datasets/store.py": "from flywheel.algorithms import ops",
            "flywheel/report/page.py": "import flywheel.robots.base",
            "flywheel/tasks/lift.py": "def lazy() -> None:\n    import mujoco",
            "flywheel/rollout/collect.py": "import tensorflow_datasets as tfds",
            "flywheel/policy.py": "from lightning import Trainer",
            "flywheel/bench/data.py": "import d3rlpy",
        }
    )
    assert result.returncode == 1
    for contract in PYPROJECT["tool"]["importlinter"]["contracts"]:
        assert re.search(rf"^{re.escape(contract['name'])} BROKEN", result.stdout, re.MULTILINE), contract["name"]


def test_a_new_package_must_be_given_its_place() -> None:
    result = walls.check(planted={"flywheel/serving.py": ""})
    assert result.returncode == 1
    assert "serving" in result.stdout + result.stderr


def test_the_linked_folders_are_namespaces() -> None:
    for name in walls.LINKED:
        link = walls.ROOT / "flywheel" / name
        assert link.is_symlink()
        assert link.readlink().as_posix() == f"../{name}"
        assert not (walls.ROOT / name / "__init__.py").exists()


def test_the_lock_names_versions_and_no_index() -> None:
    lock = (walls.ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    locked = {re.split(r"[=<>! ;]", line)[0].lower() for line in lock.splitlines() if line and line[0].isalnum()}
    project = PYPROJECT["project"]
    extras = {name: group for name, group in project["optional-dependencies"].items() if name != "beam"}  # older pins than ours
    wanted = [requirement for group in extras.values() for requirement in group]
    names = {re.split(r"[\[=<>! ;]", requirement)[0].lower() for requirement in [*project["dependencies"], *wanted]}
    assert names - {"flywheel-robotics"} <= locked

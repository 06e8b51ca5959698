"""The README's example runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_logging_example_stores_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    info = names["store"].info()  # type: ignore[attr-defined]
    assert (info.episodes, info.steps) == (1, 10)
    assert (tmp_path / "data/my_arm/1.0.0/dataset_info.json").exists()


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"(?:`|\()((?:docs|tests|flywheel)/[\w/.]+|[A-Z]+\.md)", README.read_text())
    assert len(named) > 5
    for name in named:
        assert (README.parent / name).exists(), name

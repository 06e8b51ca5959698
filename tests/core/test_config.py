from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flywheel.core import config
from flywheel.core.errors import FlywheelError


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    path: Path
    inner: Inner = field(default_factory=Inner)
    maybe: Path | None = None


@pytest.mark.parametrize("value", [Outer(Path("a/b")), Outer(Path("a"), Inner((3,), 1.0), Path("c"))])
def test_round_trip_through_yaml(tmp_path: Path, value: Outer) -> None:
    config.save(value, tmp_path / "config.yaml")
    assert config.from_dict(Outer, config.load_dict(tmp_path / "config.yaml")) == value


def test_unknown_keys_are_named() -> None:
    with pytest.raises(FlywheelError, match="colour"):
        config.from_dict(Inner, {"colour": 1})


@pytest.mark.parametrize("content", [b"[1, 2", b"- a\n- b\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(FlywheelError, match=r"config\.yaml"):
        config.load_dict(tmp_path / "config.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="no configuration"):
        config.load_dict(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({}, r"lacks \['path'\]"),
        ({"path": 3}, "'path' cannot be 3"),
        ({"path": "a", "inner": 5}, "Inner must be a mapping"),
        ({"path": "a", "inner": {"rate": "fast"}}, "'rate' cannot be 'fast'"),
        ({"path": "a", "inner": {"sizes": 3}}, "'sizes' cannot be 3"),
        ({"path": "a", "inner": {"rate": True}}, "'rate' cannot be True"),
    ],
)
def test_values_of_another_type_and_missing_ones_are_named(data: dict[str, object], named: str) -> None:
    with pytest.raises(FlywheelError, match=named):
        config.from_dict(Outer, data)


def test_nothing_is_no_value_of_a_setting_that_needs_one() -> None:
    with pytest.raises(FlywheelError, match="'rate' cannot be None"):
        config.from_dict(Outer, {"path": "a", "inner": {"rate": None}})

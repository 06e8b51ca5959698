"""Every algorithm has a page whose tables name settings that there are, with their defaults."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from flywheel.algorithms.base import Algorithm
from flywheel.core import registry
from flywheel.training.recipe import DataConfig

PAGES = Path(__file__).parents[2] / "docs" / "algorithms"
NAMES = registry.names("algorithms")


def _defaults(name: str) -> dict[str, object]:
    config = registry.load("algorithms", name, Algorithm).Config()
    own = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    data = {f"data.{item.name}": getattr(DataConfig(), item.name) for item in dataclasses.fields(DataConfig)}
    return {key.replace("_", "-"): value for key, value in (own | data).items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_the_defaults(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text()
    defaults = _defaults(name)
    told = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", text, re.MULTILINE)
    assert told
    for settings, values in told:
        for setting, value in zip(re.findall(r"`([^`]*)`", settings), values.split(", "), strict=False):
            assert setting in defaults, setting
            assert _is(defaults[setting], value), (setting, defaults[setting], value)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_a_command_and_a_number_or_says_that_there_is_none(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text()
    assert f"`flywheel train {name} " in text
    assert "**Reproduced number**" in text
    assert f"({name}.md)" in (PAGES / "README.md").read_text()


def _is(default: object, told: str) -> bool:
    if default is None or isinstance(default, bool):
        return told == ("on" if default else "off")
    if isinstance(default, tuple):
        return told == " ".join(str(width) for width in default)
    if isinstance(default, int | float):
        return float(told.split()[0].replace(",", "")) == default
    return told == default

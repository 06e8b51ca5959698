from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.npy import Npz
from flywheel.datasets.importers.object_arrays import numbers, read_objects


@pytest.mark.parametrize("protocol", [2, 3, 4])  # numpy 1 writes 3, numpy 2 writes 4
def test_numbers_are_read_as_they_are(protocol: int) -> None:
    plain = {"scale": 0.5, "on": True, "more": (1, [2, -300000])}
    infos = [{"actions": np.arange(7) / 3 + step, "step": step, **plain} for step in range(300)]
    found = read_objects(pickle.dumps(np.array(infos, dtype=object), protocol=protocol))
    assert len(found) == 300
    for expected, item in zip(infos, found, strict=True):
        np.testing.assert_array_equal(numbers(item["actions"]), expected["actions"])
        assert {key: value for key, value in item.items() if key != "actions"} == {"step": expected["step"], **plain}


@pytest.mark.parametrize("dtype", ["float32", ">f8", "int64", "uint8", "bool"])
def test_arrays_of_all_numbers(dtype: str) -> None:
    value = np.arange(6).reshape(2, 3).astype(dtype)
    (found,) = read_objects(pickle.dumps([np.asfortranarray(value)]))
    np.testing.assert_array_equal(found, value)


def test_it_reads_what_numpy_saves(tmp_path: Path) -> None:
    infos = [{"actions": np.full(7, step, np.float64)} for step in range(5)]
    np.savez(tmp_path / "state_1_2.npz", action_infos=infos, states=np.zeros((6, 3)), env="Lift")
    file = Npz(tmp_path / "state_1_2.npz")
    assert [float(item["actions"][0]) for item in file.objects("action_infos")] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert str(file.rows("env")) == "Lift"


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    "hostile",
    [
        pickle.dumps([_Bomb()]),
        pickle.dumps([_Bomb()], protocol=0),
        pickle.dumps(Path("x")),
        pickle.dumps(np.array(["text"])),
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.",
    ],
)
def test_nothing_is_ever_run(hostile: bytes) -> None:
    with pytest.raises(FlywheelError, match=r"names|would|something else|latin1|operation"):
        numbers(read_objects(hostile))
    assert not Path("executed").exists()


def test_damage_never_hangs_or_runs(tmp_path: Path) -> None:
    data = pickle.dumps(np.array([{"actions": np.arange(7.0)}] * 20, dtype=object), protocol=4)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        hurt = bytearray(data)
        for place in rng.integers(len(hurt), size=3):
            hurt[place] = rng.integers(256)
        # Whatever is raised is a sentence in the end (`files.reading`), if only the process lives to say it.
        with suppress(Exception):
            read_objects(bytes(hurt[: rng.integers(1, len(hurt))]))

"""python -m flywheel.bench.training: kill training runs and checkpoint saves, spoil batches, and look at what is left.

T1: 100 SIGKILLs at random moments of runs whose store grows meanwhile; T2: 1,000 while a checkpoint of 24 MB is written, and
100 full disks; T3: 100 runs that meet a batch with a NaN or an infinity. About twenty minutes on one core. The figures are
written after each part, and a run that was interrupted goes on from there; it ends with status 1 where a proof fails.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro

from flywheel.bench.machine import describe
from flywheel.bench.training.faults import spoil
from flywheel.bench.training.resumes import resume_killed
from flywheel.bench.training.saves import kill_saves
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

Record = dict[str, Any]


class Proof(NamedTuple):
    """One goal of docs/benchmarks.md."""

    part: Callable[[Path, int], Record]
    """Makes part number n in an empty folder."""
    counts: str
    """The entry of a record that counts towards `total`."""
    total: int
    bad: str
    """The entry that must be empty, or zero."""
    says: str


PROOFS = {
    "T1": Proof(resume_killed, "kills", 100, "different", "SIGKILLs of training; runs that then differed from their twins"),
    "T2": Proof(kill_saves, "kills", 1_000, "unloadable", "SIGKILLs during a checkpoint's save; then not loadable"),
    "T3": Proof(spoil, "runs", 100, "wrong", "spoiled batches; not stopped at, not named or not kept"),
}


@dataclass(frozen=True)
class ProofConfig:
    """Prove goals T1 to T3 of docs/benchmarks.md."""

    proofs: tuple[Literal["T1", "T2", "T3"], ...] = ("T1", "T2", "T3")
    """Which of them."""
    quick: bool = False
    """One part of each, in place of the full counts."""
    folder: Path | None = None
    """Where the runs lie while they are needed, on the disk that is asked about; the system's temporary folder without."""
    output: Path | None = None
    """Keep the figures in this JSON file, and go on from what it holds."""


def main() -> None:
    """Run the proofs and print a line for each."""
    config = tyro.cli(ProofConfig, description=__doc__)
    torch.set_num_threads(1)
    figures = _held(config.output)
    for name in config.proofs:
        records = figures.setdefault(name, [])
        while _is_wanting(PROOFS[name], records, config.quick):
            records.append(_make(PROOFS[name], len(records), config.folder))
            _say_progress(f"{name}: {_count(PROOFS[name], records):,} of {PROOFS[name].total:,}")
            _save(figures, config.output)
    _say_progress("")
    for name in config.proofs:
        print(summary(name, figures[name]))
    sys.exit(any(_failures(PROOFS[name], figures[name]) for name in config.proofs))


def summary(name: str, records: list[Record]) -> str:
    """One line about a proof."""
    proof = PROOFS[name]
    seconds = sum(record["seconds"] for record in records)
    return f"{name} {proof.says}: {_count(proof, records):,}; {_failures(proof, records)} ({seconds:,.0f} s)"


def _make(proof: Proof, number: int, folder: Path | None) -> Record:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        record = proof.part(Path(temporary), number)
    return {**record, "seconds": round(time.monotonic() - began, 2)}


def _is_wanting(proof: Proof, records: list[Record], quick: bool) -> bool:
    return not records if quick else _count(proof, records) < proof.total


def _count(proof: Proof, records: list[Record]) -> int:
    return sum(record[proof.counts] for record in records)


def _failures(proof: Proof, records: list[Record]) -> int:
    return sum(bool(record[proof.bad]) for record in records)


def _held(output: Path | None) -> dict[str, Any]:
    if output is None or not output.exists():
        return {"machine": describe()}
    try:
        held: dict[str, Any] = json.loads(output.read_text())
    except ValueError:
        raise FlywheelError(f"{output} holds no figures; name another file, or delete it.") from None
    code = describe()["code"]
    if held["machine"]["code"] != code:
        raise FlywheelError(f"{output} was begun with other code than {code}; name another file.")
    return held


def _save(figures: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        write_atomically(output, json.dumps(figures, indent=1).encode())


def _say_progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    elif line:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

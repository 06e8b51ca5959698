"""Run every proof in full and print a table; ``--quick`` runs a hundredth. Takes about an hour on one core."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flywheel.bench.durability.disk_full import fill
from flywheel.bench.durability.flips import flip_bits
from flywheel.bench.durability.hostile import attack
from flywheel.bench.durability.kills import read_while_writing, run_kills
from flywheel.bench.durability.latency import measure, recovery_seconds, scaling, summary
from flywheel.bench.durability.power_loss import lose_power
from flywheel.bench.durability.sweep import OPERATIONS, sweep

Proof = Callable[[Path], Iterator[tuple[str, str]]]


def main() -> None:
    """Run the proofs that are named, or all; a failed one raises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proofs", nargs="*", help="S1 S3 S5 S6 S7 S8 X5; all without")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure; the system's temporary one without")
    given = parser.parse_args()
    proofs = _proofs(100 if given.quick else 1)
    for name in given.proofs or proofs:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            for what, found in proofs[name](Path(folder)):
                print(f"{what:<72} {found}", flush=True)
        print(f"{'':<72} ({time.perf_counter() - start:,.0f} s)", flush=True)


def _proofs(part: int) -> dict[str, Proof]:
    """Every proof by its number in docs/benchmarks.md, with counts divided by `part`."""
    return {
        "S1": lambda folder: _kills(folder, 1_000 // part),
        "S3": lambda folder: _every_call(folder, 0 if part == 1 else 100),
        "S5": lambda folder: _flips(folder, 100_000 // part),
        "S6": lambda folder: _opens(folder, 10_000 // part),
        "S7": lambda folder: _full(folder, range(0, 30_000, 50 * part)),
        "S8": lambda folder: _latency(folder, 5 if part == 1 else 1),
        "X5": lambda folder: _hostile(folder, 1_000 // part),
    }


def _kills(folder: Path, kills: int) -> Iterator[tuple[str, str]]:
    found = run_kills(folder, kills)
    yield "S1 SIGKILLs of 4 writers, compacting and reading beside: kills", f"{found.kills:,}"
    yield "   acknowledged; lost, doubled, torn", f"{found.acknowledged:,}; 0"
    yield "S2 reads by plain TFDS before any recovery; failures", f"{found.tfds_reads:,}; 0"
    yield "S4 seconds to recover, worst", f"{max(found.recovery_seconds):.2f}"
    yield "S6 opens by readers meanwhile; failures; compactions", f"{found.opens:,}; 0; {found.generations:,}"


def _every_call(folder: Path, limit: int) -> Iterator[tuple[str, str]]:
    for operation in OPERATIONS:
        kills = sweep(folder / f"sweep-{operation}", operation)
        yield f"S3 kills before every call of {operation}; lost", f"{kills:,}; 0"
    for operation in OPERATIONS:
        states = lose_power(folder / f"power-{operation}", operation, limit=limit)
        yield f"S3 legal states after a power loss in {operation}; lost", f"{states:,}; 0"


def _flips(folder: Path, count: int) -> Iterator[tuple[str, str]]:
    for kind, flips in sorted(flip_bits(folder, count).items()):
        yield f"S5 flipped bits in {kind}; unnoticed", f"{flips:,}; 0"


def _opens(folder: Path, count: int) -> Iterator[tuple[str, str]]:
    opens, episodes, seconds = read_while_writing(folder, count)
    yield "S6 opens beside 4 writers and compaction; failures", f"{opens:,} ({episodes:,} episodes, {seconds:,.0f} s); 0"


def _full(folder: Path, capacities: range) -> Iterator[tuple[str, str]]:
    yield "S7 sizes at which the disk was full; of them refused; lost", f"{len(capacities):,}; {fill(folder, capacities):,}; 0"


def _latency(folder: Path, rounds: int) -> Iterator[tuple[str, str]]:
    yield from summary(measure(folder / "latency", rounds))
    for processes in (1, 2, 4):
        yield f"S8 episodes/s of {processes} writers", f"{scaling(folder / str(processes), processes):,.0f}"
    yield "S4 seconds to open beside 1,000 unsealed episodes", f"{recovery_seconds(folder / 'recovery'):.2f}"


def _hostile(folder: Path, count: int) -> Iterator[tuple[str, str]]:
    yield "X5 hostile stores; refused; reads, writes or imports outside", f"{count:,}; {attack(folder, count):,}; 0"


if __name__ == "__main__":
    main()

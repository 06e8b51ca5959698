"""The proofs S1-S10 and X5 of docs/benchmarks.md, each repeatable: ``python -m flywheel.bench.durability``."""

"""Proofs of what training promises: goals T1 to T3 of docs/benchmarks.md."""

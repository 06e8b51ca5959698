"""OGBench's table of goal-conditioned agents on states (Park, Frans, Eysenbach, Levine 2024; arXiv 2410.20092, table 2)."""

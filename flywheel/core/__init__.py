"""The types that every other package shares; numpy alone, torch only in batch.py."""

"""Running policies: rollouts, collection, evaluation and its statistics."""

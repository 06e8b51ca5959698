"""Published tables again: one command per table row makes the data, trains, evaluates and prints both numbers."""

"""Network blocks: multi-layer perceptrons, actors, critics, encoders. No losses here."""

"""What `flywheel bench` and `make bench-peers` measure."""

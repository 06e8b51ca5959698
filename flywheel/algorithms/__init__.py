"""One file per algorithm over the shared arithmetic in ops.py."""

"""Importing episodes that other programs have written: one file per format, all of them a `base.Source`."""

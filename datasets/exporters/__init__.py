"""Writing the episodes of a snapshot in the forms that other programs read: one file per format."""

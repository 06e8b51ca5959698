"""Labels of success: by a detector, and by a person who looks at the pictures."""

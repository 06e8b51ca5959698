"""What keeps a store in order: verify, repair, compact and the retirement of old generations."""

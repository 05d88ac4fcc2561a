"""A training from its start to its last file."""

"""Weight files: found, fetched, read, converted and loaded."""

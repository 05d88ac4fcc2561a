"""What can be set: keys, files, recipes, and their checks."""

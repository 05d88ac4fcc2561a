"""The step, and what it updates with."""

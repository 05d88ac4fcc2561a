"""What makes a trained network fast to run."""

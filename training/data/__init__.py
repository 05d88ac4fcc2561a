"""From a data set name or folder to batches."""

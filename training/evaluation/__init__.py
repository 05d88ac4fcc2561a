"""Measuring a model on a whole data set."""

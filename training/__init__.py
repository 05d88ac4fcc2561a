"""Trains, evaluates and ships the networks of `keras_lightnets`."""

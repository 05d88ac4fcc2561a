"""Layers that Keras lacks or runs too slowly; each also works in anybody's model."""

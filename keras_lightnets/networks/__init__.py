"""The five networks, one file a paper, and what their builders share."""

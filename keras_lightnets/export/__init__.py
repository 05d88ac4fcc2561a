"""From a model to what TF Serving and other runtimes load."""

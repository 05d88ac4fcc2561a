"""What is known about every network without building it. Nothing here imports TensorFlow."""

"""Facts about TensorFlow Serving that exports, and whoever starts it, must agree on."""

import pathlib

# Of the files beside a bundle: of the TensorFlow that exports. No container engine was at hand, so
# that it was neither pulled nor run here.
IMAGE = "tensorflow/serving:2.21.0"

# Its default ports, also inside its image.
GRPC_PORT, REST_PORT = 8500, 8501

# Files for it, which exports fill in.
TEMPLATES = pathlib.Path(__file__).parent / "templates"

# `models.config` may change while the server runs, and a label in it may name a version that is
# not loaded yet: without the second flag, the server refuses the file.
RELEASE_FLAGS = (
    "--model_config_file_poll_wait_seconds=10",
    "--allow_version_labels_for_unavailable_models=true",
)

# How its own merging of requests is set.
BATCHING_FILE = "batching_parameters.txt"
DEFAULT_MAX_BATCH_SIZE = 1000

"""Facts about TensorFlow Serving that exports, and whoever starts it, must agree on."""

import pathlib

# Of the files beside a bundle: of the TensorFlow that exports. No container engine was at hand, so
# that it was neither pulled nor run here.
IMAGE = "tensorflow/serving:2.21.0"

# Its default ports, also inside its image.
GRPC_PORT, REST_PORT = 8500, 8501

# Files for it, which exports fill in.
TEMPLATES = pathlib.Path(__file__).parent / "templates"

# A label may name a version that is not loaded yet; without this, the server refuses the file.
LABELS_FLAG = "--allow_version_labels_for_unavailable_models=true"

# How its own merging of requests is set.
BATCHING_FILE = "batching_parameters.txt"
DEFAULT_MAX_BATCH_SIZE = 1000

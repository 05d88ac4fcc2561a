"""Makes the golden files that are missing. Needs PyTorch, torchvision, timm and pytorchcv.

pip install torch torchvision timm pytorchcv numpy
python tests/goldens/make.py
"""

import json
import pathlib
import sys

import numpy as np
import pytorchcv.model_provider
import timm
import torch
import torchvision

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.golden_weights import image, state_dict  # noqa: E402

SEED = 7
MAKERS = {
    "torchvision": lambda name: getattr(torchvision.models, name)(),
    "timm": timm.create_model,
    "pytorchcv": pytorchcv.model_provider.get_model,
}
FILES = (
    ("torchvision", "squeezenet1_0"),
    ("timm", "mobilenetv1_100h"),
    ("timm", "mobilenetv2_050"),
    ("pytorchcv", "mobilenet_wd4"),
    ("pytorchcv", "mobilenetb_wd4"),
    ("pytorchcv", "mobilenetv2_wd4"),
    ("pytorchcv", "mobilenetv2b_w1"),
    ("pytorchcv", "shufflenetv2_wd2"),
    ("pytorchcv", "shufflenetv2b_w1"),
)


def main() -> None:
    for source, name in FILES:
        path = HERE / f"{source}__{name}.npz"
        if path.exists():
            continue
        model = MAKERS[source](name).eval()
        tensors = [
            [key, list(value.shape)]
            for key, value in model.state_dict().items()
            if not key.endswith("num_batches_tracked")
        ]
        weights = {k: torch.from_numpy(v) for k, v in state_dict(tensors, SEED).items()}
        model.load_state_dict(weights, strict=False)
        with torch.no_grad():
            logits = model(torch.from_numpy(image(SEED, 224, 224))).numpy()
        spec = {"source": f"{source}/{name}", "seed": SEED, "tensors": tensors}
        np.savez_compressed(
            path,
            spec=np.frombuffer(json.dumps(spec).encode(), "uint8"),
            logits_224x224=logits,
        )
        print(path.name)


if __name__ == "__main__":
    main()

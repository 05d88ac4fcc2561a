"""The handwritten digits that scikit-learn bundles, as a TensorFlow Datasets builder.

1,797 scans of 8 by 8 pixels in 17 grey levels, of ten classes: the test set of the UCI
"Optical Recognition of Handwritten Digits" data (Alpaydin and Kaynak, 1998). Nothing is
downloaded, so it serves demonstrations and tests as a real, small TFDS data set.
"""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

TEST_EXAMPLES = 360


class Digits(tfds.core.GeneratorBasedBuilder):
    """Splits: train (1,437 images) and test (360), stratified by class, always the same."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS wants a plain dictionary)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8 by 8 pixels, from scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # nothing to download
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        # Grey levels 0 to 16 become 0 to 255.
        images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=TEST_EXAMPLES, stratify=labels, random_state=0
        )
        return {
            "train": self._generate_examples(images, labels, np.sort(train)),
            "test": self._generate_examples(images, labels, np.sort(test)),
        }

    def _generate_examples(self, images, labels, indices):
        for index in indices:
            yield int(index), {"image": images[index], "label": int(labels[index])}

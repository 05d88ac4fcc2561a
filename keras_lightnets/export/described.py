"""What a file of another runtime says about itself: class names, and how images are prepared.

A LiteRT file carries what MediaPipe Tasks and ML Kit read: metadata by TensorFlow Lite's schema
(`metadata_schema.fbs`), a FlatBuffer in the model, and the class names as a file in a ZIP archive
behind the model.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
from tensorflow.lite.tools import flatbuffer_utils

from keras_lightnets.catalogue.class_names import LABELS
from keras_lightnets.export.tasks import CLASSIFICATION, Classification
from keras_lightnets.text import visible

PIXELS = "RGB, 0 to 255; normalization is part of the model"

_RGB, _AXIS_LABELS = 1, 2  # of the enumerations ColorSpaceType and AssociatedFileType
_IMAGE, _NORMALIZATION = 2, 1  # of the unions ContentProperties and ProcessUnitOptions


@dataclasses.dataclass(frozen=True)
class Description:
    """Of a classifier.

    Attributes:
        name: Of the network.
        labels: Class names in the order of the output.
        transform: From an image file to the input, as `EvalTransform.to_dict` gives it.
        task: What the numbers mean.
    """

    name: str
    labels: Sequence[str]
    transform: Mapping[str, Any]
    task: Classification = CLASSIFICATION

    def properties(self) -> dict[str, str]:
        """Returns texts for formats that hold such; lists are JSON."""
        return {
            "labels": json.dumps(list(self.labels), ensure_ascii=False),
            "transform": json.dumps(dict(self.transform)),
            "pixels": PIXELS,
            **({"task": json.dumps(about)} if (about := self.task.about()) else {}),
        }


def with_metadata(content: bytes, about: Description) -> bytes:
    """Returns the LiteRT file `content` with its metadata and class names.

    What it holds several times is written once: of an int8 MobileNet v2 6 % are zero points, a
    zero of 64 bits for each channel of each weight and bias.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    schema = flatbuffer_utils.schema_fb
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = _metadata(about, rejects=len(model.subgraphs[0].outputs) > 1)
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    # Who reads one output wants probabilities; by name "known" would come first.
    names = {each.tensorIndex: each.name for own in model.signatureDefs for each in own.outputs}
    graph = model.subgraphs[0]
    graph.outputs = sorted(graph.outputs, key=lambda place: names[place], reverse=True)
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), b"TFL3")
    file = io.BytesIO()
    file.write(builder.Output())
    with zipfile.ZipFile(file, "a") as archive:
        # With a date of its own, equal exports would differ.
        lines = "".join(f"{visible(name)}\n" for name in about.labels)
        archive.writestr(zipfile.ZipInfo(LABELS), lines.encode())
    return file.getvalue()


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal arrays once."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Any) -> int:
        key = (x.dtype.str, x.tobytes())
        if key not in self.made:
            self.made[key] = super().CreateNumpyVector(x)
        return self.made[key]

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
        # The schema wants 16 for weights, which are bytes; the generated code forgets that.
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def _metadata(about: Description, *, rejects: bool) -> bytes:
    builder = flatbuffers.Builder()
    text = builder.CreateString

    def table(*fields: int | tuple[str, int] | None) -> int:
        """A table whose slots are offsets of others, `(type, number)`, or empty."""
        builder.StartObject(len(fields))
        for slot, field in enumerate(fields):
            if isinstance(field, tuple):
                getattr(builder, f"Prepend{field[0]}Slot")(slot, field[1], 0)
            elif field is not None:
                builder.PrependUOffsetTRelativeSlot(slot, field, 0)
        return builder.EndObject()

    def tables(*offsets: int) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def numbers(*values: float) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        return builder.EndVector()

    rgb = table(("Int8", _RGB))
    content = table(("Uint8", _IMAGE), rgb)
    normalization = table(("Uint8", _NORMALIZATION), table(numbers(0.0), numbers(1.0)))
    stats = table(numbers(255.0), numbers(0.0))
    pixels = text("RGB pixels from 0 to 255; normalization is part of the model.")
    image = table(text("image"), pixels, None, content, tables(normalization), stats)
    labels = table(text(LABELS), text("Class names, one a line."), ("Int8", _AXIS_LABELS))
    shares = text(about.task.text)
    answer = table(text(about.task.number), shares, None, None, None, None, tables(labels))
    answers = [answer]
    if rejects:
        told = text("1 for an image that is like those of some class in training, else 0.")
        answers.append(table(text("known"), told))
    graph = table(None, None, tables(image), tables(*answers))
    what = text(f"{about.name} {about.task.verb.format(len(about.labels))}")
    model = table(text(about.name), what, None, tables(graph), None, None, None, text("1.0.0"))
    builder.Finish(model, b"M001")
    return bytes(builder.Output())

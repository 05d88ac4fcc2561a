"""What an export can fail with, for reasons that its caller can do something about."""


class ExportError(ValueError):
    """The model cannot be exported as asked; nothing was published."""


class ParityError(ExportError):
    """The exported model, read back, does not compute what the Keras model computes."""

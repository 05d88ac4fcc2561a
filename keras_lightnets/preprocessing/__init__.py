"""From the bytes of an image file to the pixels that a network sees.

`__init__.pyi` lists the public names. They are imported on first use: networks need
`EvalTransform`, but no TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Export to TF Serving and other runtimes, a client, and a stand-in server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""A stand-in for TensorFlow Serving on a developer's machine, and ways to start the real one.

`layout` finds models, `engines` starts the real server, `embedded` is the stand-in. Nothing here
is imported before it is needed: `layout`, `engines` and `options` work without TensorFlow.
"""

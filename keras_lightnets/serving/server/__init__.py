"""The embedded server of a developer's machine, and ways to start the real TensorFlow Serving.

`layout` finds models, `model_server` starts the real server, `embedded` is the other one. Nothing
here is imported before it is needed: `layout`, `model_server` and `options` work without
TensorFlow.
"""

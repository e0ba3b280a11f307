"""A bundle that is ready to compute: on ONNX Runtime, on an engine of our own, or on a GPU."""

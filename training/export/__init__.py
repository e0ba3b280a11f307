"""The student as ONNX graphs, in full precision and in int8, each held to the one before."""

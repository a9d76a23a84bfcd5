"""Samples in, statistics and metrics out: feeds, ONNX Runtime sessions, observers, metrics."""

"""Quantization: static, dynamic, and of weights alone."""

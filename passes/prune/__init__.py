"""Zeros: weights that go."""

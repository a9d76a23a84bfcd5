"""Whole residual branches go."""

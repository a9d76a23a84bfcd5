"""Layers in place of one: low-rank factors."""

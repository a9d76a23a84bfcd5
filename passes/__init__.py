"""Passes: one folder a family, one file a technique."""

"""Neurons that are alike become one, without any data."""

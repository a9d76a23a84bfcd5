"""Narrower floats: half the bytes, stored or computed with."""

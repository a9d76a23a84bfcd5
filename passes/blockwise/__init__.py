"""Weights alone in 8, 4 or 2 bits, in blocks with scales of their own."""

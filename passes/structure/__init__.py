"""Weights told by few parameters: circulant, Toeplitz-like, and products of diagonals and fast transforms."""

"""Weights become zero, and stay where they are: files that compress, and layers refitted to make up for it."""

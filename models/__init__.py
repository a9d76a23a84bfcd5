"""Recipes that fetch or build the models, and the labelled samples, of tests, demo and benchmarks."""

"""Rewrites that leave what a model computes as it was; normalisation applies them."""

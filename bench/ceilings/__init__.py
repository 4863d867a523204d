"""Ceilings: the same work without the product, for comparison."""

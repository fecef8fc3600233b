"""Balancing: how the two tasks share one optimiser."""

"""Metrics that give the same values on one process and on many."""

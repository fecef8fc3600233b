"""Metrics that give the same figures on one process and on many."""

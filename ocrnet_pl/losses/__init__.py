"""Losses and the assignment of candidates to boxes."""

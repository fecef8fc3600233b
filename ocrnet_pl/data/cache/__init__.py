"""Decoded samples shared by workers and processes."""

"""Loggers: Weights & Biases and the CSV table."""

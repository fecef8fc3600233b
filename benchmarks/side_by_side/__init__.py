"""Peers trained on the same images, weights, size and time as the joint network; see ``benchmarks/peers.py``."""

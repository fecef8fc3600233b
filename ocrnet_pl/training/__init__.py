"""Training: what is checked before a run starts, how a run continues, and how its errors are reported."""

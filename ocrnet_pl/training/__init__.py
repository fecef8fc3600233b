"""Training: what a run is checked for before it starts, and how its errors are told."""

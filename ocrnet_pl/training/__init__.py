"""Training: what a run is checked for before it starts, how one continues, and how its errors are told."""

"""Reading, moving, scaling and tiling images."""

"""Writing data sets in formats that other programs read."""

"""The search for fusion's settings on labelled images."""

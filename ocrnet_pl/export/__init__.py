"""A trained network as one file for other runtimes, checked against the network that it was made from."""

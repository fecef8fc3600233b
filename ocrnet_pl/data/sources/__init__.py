"""One file a data set format."""

"""The data check: what a data set contains, and what is wrong with it."""

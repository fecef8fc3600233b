"""Predictions in the formats of labelling tools, to be corrected there."""

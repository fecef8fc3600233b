"""Recognising the format of a folder by its files."""

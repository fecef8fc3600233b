"""Readers of the sources' annotation files."""

"""Drawings, plots, pages, tables and progress of a run."""

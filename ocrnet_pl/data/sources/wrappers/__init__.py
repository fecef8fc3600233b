"""Sources around other sources."""

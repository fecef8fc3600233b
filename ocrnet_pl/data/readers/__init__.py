"""What the sources read their annotation files with."""

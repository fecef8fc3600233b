"""From raw output to predictions at the original size."""

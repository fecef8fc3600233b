"""What the benchmark of deployment consists of."""

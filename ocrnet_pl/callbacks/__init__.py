"""Lightning callbacks: checkpoints, logs, pictures and checks of a run."""

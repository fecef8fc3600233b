"""From a source to batches: samplers, datasets, workers."""

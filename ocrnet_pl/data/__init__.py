"""Sources of labelled images, transforms, and batches."""

"""The data room: sources of labelled images, transforms, and batches."""

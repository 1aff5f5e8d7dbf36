"""The worker process: one image at a time from a slot to a file."""

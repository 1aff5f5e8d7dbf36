"""The supervisor: one process that owns the listener, the queue, the workers and the feed."""

"""Our own engine: it runs the model in this process."""

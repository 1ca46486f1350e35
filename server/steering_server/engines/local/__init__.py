"""The local engine, which runs the model in this process."""

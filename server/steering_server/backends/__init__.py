"""What the API can talk to: the protocol and the backends that meet it."""

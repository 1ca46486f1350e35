"""The layers that every request passes before it reaches its route, one module per concern."""

"""The server on Ray Serve: replicas of the engine, and an ingress that finds the one for each request.

``serve run steering_server.ray_serve.building:application model=...``; see docs/ray.md.
"""

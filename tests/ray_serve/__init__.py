"""The server on Ray Serve. Without Ray only what needs none of it is tested: `make test-ray` tests all."""

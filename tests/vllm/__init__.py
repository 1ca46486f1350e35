"""Tests with a running vLLM, in an environment of their own: `make test-vllm`."""

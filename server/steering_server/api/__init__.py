"""Routes, schemas and errors of the HTTP API. Knows nothing of tensors."""

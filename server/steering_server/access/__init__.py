"""Who may ask for what: API keys and their quotas. Knows nothing of HTTP and nothing of tensors."""

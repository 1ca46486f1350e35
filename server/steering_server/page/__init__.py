"""The page at ``/``: static files for a browser, which talk to the API as any other client does."""

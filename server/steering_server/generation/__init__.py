"""Types and services shared by the API and all engines: requests, chunks, tokenizer, profiles, backend. No torch."""

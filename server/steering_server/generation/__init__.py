"""What the API and every engine share: requests and chunks, tokens and text, profiles, the backend. No torch."""

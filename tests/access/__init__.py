"""Tests of API keys and their quotas."""

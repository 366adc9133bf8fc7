"""Checking, measuring and looking at a dataset: LLaVA-format JSON, shards, or both."""

"""Prefill and decode over a key-value cache: prompts in, tokens out."""

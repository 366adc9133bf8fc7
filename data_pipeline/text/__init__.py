"""Tokenizer, conversation templates, token ids and loss weights built segment by segment."""

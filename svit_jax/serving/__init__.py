"""Answers over HTTP: the OpenAI chat-completions API in front of the continuous engine."""

"""Scenes become prompts, a teacher answers them, and the answers become checked dialogues."""

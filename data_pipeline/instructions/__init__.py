"""SVIT's raw format, question files and captions become LLaVA-1.5's format."""

"""SVIT's raw format, cleaned, question files and captions become LLaVA-1.5's format; and back."""

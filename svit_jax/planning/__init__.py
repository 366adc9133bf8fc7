"""What a compiled program will cost, read from its text before it runs."""

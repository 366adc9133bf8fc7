"""State, objective, optimizer, step, loop: the trainer, readable in one sitting."""

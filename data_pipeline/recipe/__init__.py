"""The recipe: SVIT's core subset and the 665K mixture."""

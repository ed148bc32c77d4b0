"""Dead letters: written by consumers, read by operators, sent again each once."""

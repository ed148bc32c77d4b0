"""Rules: which events they follow, read together, and how far each has come."""

"""Rules: which events they follow, and which of them read together."""

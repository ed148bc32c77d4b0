"""The streams themselves: what they must be, what they are, and copies of them."""

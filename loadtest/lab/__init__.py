"""Storm scenarios and fault runs, and the verdicts on them."""

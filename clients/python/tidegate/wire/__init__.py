"""The wire contract `tidegate.v1`: frames, the grammar of names, the depth of data."""

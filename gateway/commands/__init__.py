"""The commands of `tidegate`, a module each: what one needs, no other waits for."""

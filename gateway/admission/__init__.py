"""Pure: which devices may connect, and when. Nothing here does I/O."""

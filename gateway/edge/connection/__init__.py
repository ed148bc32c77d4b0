"""One open WebSocket connection: frames in, text out, and how it ends."""

"""Facts about who is connected, on their way into the stream."""

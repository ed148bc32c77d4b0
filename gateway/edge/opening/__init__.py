"""From the first byte of a connection to a refusal or an open WebSocket."""

"""Tidegate's gateway: device sessions over WebSocket in front of NATS JetStream.

Kept free of imports: a plain install has only the client's dependencies, and the client imports
`tidegate.wire.frames` through this package.
"""

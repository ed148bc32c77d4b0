"""The way of a message into the stream: lanes, batches, answers, and where an outbox goes on."""

"""Pure: what becomes of an event after the stream. No I/O, no asyncio, no other room of ours."""

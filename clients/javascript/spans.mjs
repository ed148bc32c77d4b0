// Spans of messages, from `send` until they are settled. They are in memory only: a message that is
// still there at the next start has no trace.

const OPEN_MAX = 10_000; // the span of a further message ends when it is queued

export class Spans {
  // begin(type): { traceparent, end(error) } of a sampled span, or null. `end` is called once, with
  // the reason if the message was not stored, else with null. Neither of them may throw.
  constructor(begin) {
    this.begin = begin ?? (() => null);
    this.open = new Map(); // by the message, as the outbox holds it
  }

  queued(message, span) {
    if (this.open.size < OPEN_MAX) this.open.set(message, span);
    else span.end(null);
  }

  traceOf(message) {
    return this.open.get(message)?.traceparent;
  }

  ended(message, error = null) {
    const span = this.open.get(message);
    this.open.delete(message);
    span?.end(error);
  }

  stopped() {
    for (const message of [...this.open.keys()]) {
      this.ended(message, "not acknowledged when the device was stopped");
    }
  }
}

// When to connect again, in milliseconds.

export class Policy {
  // scale: multiplies our own waits, but not those that a gateway names.
  constructor(scale = 1) {
    this.scale = scale;
    this.firstRetry = 2000 * scale;
    this.failures = 0;
    this.ticket = null;
    this.due = performance.now() + Math.random() * this.firstRetry;
    this.changed = () => {};
  }

  at(wait) {
    this.due = performance.now() + wait;
    this.changed();
  }

  failed() {
    this.failures += 1;
    const ceiling = Math.min(60_000, 500 * 2 ** Math.min(this.failures, 20)) * this.scale;
    this.at(Math.random() * Math.max(ceiling, this.firstRetry));
  }

  // A time from the gateway is the earliest moment; with a ticket it is the exact one.
  refused(retryMs, ticket) {
    this.ticket = ticket ?? null;
    if (this.ticket !== null) return this.at(retryMs);
    this.failed();
    this.at(retryMs + (this.due - performance.now()));
  }

  sentAway(retryMs, ticket) {
    this.ticket = ticket ?? null;
    this.at(retryMs);
  }

  // A session ended after so long, without a fault of the client.
  lost(connectedMs) {
    if (connectedMs >= 30_000 * this.scale) this.failures = 0;
    if (this.failures > 0) return this.failed();
    this.failures = 1;
    this.at(Math.random() * this.firstRetry);
  }

  soon() {
    this.at(Math.random() * this.firstRetry);
  }

  async wait() {
    for (let left; (left = this.due - performance.now()) > 0; ) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.changed = () => (clearTimeout(timer), resolve());
      });
    }
    this.changed = () => {};
  }
}

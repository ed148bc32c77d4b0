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

  // The longest wait after so many failures.
  ceiling() {
    return Math.min(60_000, 500 * 2 ** Math.min(this.failures, 20)) * this.scale;
  }

  failed() {
    this.failures += 1;
    this.at(Math.random() * Math.max(this.ceiling(), this.firstRetry));
  }

  // A time from the gateway is the earliest moment; with a ticket it is the exact one. Without one it
  // is jittered already: the rest of the wait spreads a fleet that is told one time by a load balancer.
  refused(retryMs, ticket) {
    this.ticket = ticket ?? null;
    if (this.ticket !== null) return this.at(retryMs);
    this.failures += 1;
    const spread = Math.max(this.firstRetry - retryMs, Math.min(this.firstRetry, retryMs / 4));
    this.at(retryMs + Math.random() * Math.max(spread, this.ceiling()));
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

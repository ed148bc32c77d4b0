// A small client of the wire contract `tidegate.v1`, for browsers and Node (22 or newer).
//
//   const device = new Device({ url, credential: async (refused) => jwt, storage });
//   device.start();
//   device.send("battery.low", { soc: 7 });
//   await device.stop();

import { Outbox } from "./outbox.mjs";
import { Policy } from "./policy.mjs";
import { Session } from "./session.mjs";
import { Spans } from "./spans.mjs";

const OFFENCES = [1002, 1003, 1007, 1008, 1009, 4409];
const RENEW_SHARE = [0.7, 0.9];

export class Device {
  // credential(refused): returns a JWT; `refused` is the reason why the last one was refused, or null.
  // storage: { load(), save(text) }; without it messages are lost with the page.
  // onCommand({ id, type, data, queued, trace }): what it returns or throws is the result. A queued
  // command is given once, one after the other. `trace` is the traceparent of what sent the command, or
  // null.
  // onState({ version, desired }): what the device should be like; with it the device asks for states.
  // beginSpan(type): the span of a message that is sent, or null; see spans.mjs.
  constructor(options) {
    const { url, credential, storage, onReject, onCommand, onState, onEnded, beginSpan } = options;
    this.urls = [url].flat();
    this.credential = credential;
    this.outbox = new Outbox(
      storage ?? { load: () => null, save: () => {} },
      new Spans(beginSpan),
    );
    this.outbox.wantsState = onState !== undefined;
    this.policy = new Policy(options.scale ?? 1);
    this.onReject = onReject ?? (() => {});
    this.onCommand = onCommand ?? (() => Promise.reject(new Error("no commands here")));
    this.onState = onState ?? (() => {});
    this.onEnded = onEnded ?? (() => {});
    this.token = null;
    this.refused = null;
    this.session = null; // the newest
    this.old = null; // sent away; acks still count until the next session is established
    this.handing = false; // whether the application has a queued command
    this.stopped = false;
    this.stopping = new Promise((halt) => (this.halt = halt));
  }

  get pending() {
    return this.outbox.size;
  }

  // The last state, also of an earlier start with this storage; null if there is none.
  get desired() {
    return this.outbox.state?.desired ?? null;
  }

  send(type, data, time) {
    this.outbox.add(type, data, time);
    this.session?.pump();
  }

  start() {
    this.running = this.run();
  }

  async stop() {
    this.stopped = true;
    this.halt(null);
    clearTimeout(this.renewal);
    this.policy.at(0);
    const open = [this.session, this.old].filter((session) => session && !session.ended);
    for (const session of open) session.leave(1000);
    this.over?.();
    await this.running;
    this.outbox.spans.stopped();
  }

  async run() {
    while (!this.stopped) {
      await this.policy.wait();
      if (this.stopped) return;
      if (this.token === null && !(await this.askForCredential())) continue;
      if (this.stopped) return;
      await new Promise((over) => {
        this.over = over;
        this.connect();
      });
    }
  }

  connect() {
    const offer = ["tidegate.v1", `bearer.${this.token}`];
    if (this.policy.ticket !== null) offer.push(`ticket.${this.policy.ticket}`);
    const url = `${this.urls[0]}?refusal=close`;
    this.session = new Session(new WebSocket(url, offer), this);
  }

  // Commands

  async outcomeOf({ id, type, data = null, queued = false, trace = null }) {
    try {
      return { ok: true, data: (await this.onCommand({ id, type, data, queued, trace })) ?? null };
    } catch (error) {
      return { ok: false, data: { error: String(error?.message ?? error) } };
    }
  }

  // Give the application the queued commands that wait, one after the other.
  async handOver() {
    if (this.handing) return;
    this.handing = true;
    const { commands } = this.outbox;
    try {
      for (let entry; !this.stopped && (entry = commands.take()) !== null; ) {
        if (!entry.result) commands.finish(entry, await this.outcomeOf({ ...entry, queued: true }));
        if (this.session?.welcomed && !this.session.leaving) this.session.sayFrame({ result: entry.result });
      }
    } catch {
      // The storage is full. The next command, or the next session, tries again.
    } finally {
      this.handing = false;
    }
  }

  // Credentials

  async askForCredential() {
    try {
      const token = await Promise.race([this.credential(this.refused), this.stopping]);
      if (this.stopped) return false; // do not wait for an issuer that does not answer
      if (this.revoked && token === this.revoked) {
        this.stopped = true;
        this.onEnded("revoked");
        return false;
      }
      this.token = token;
      this.renewLater(token);
      return true;
    } catch {
      this.policy.failed(); // the issuer does not answer
      return false;
    }
  }

  // Ask again at random within the last third of the token's span, to spread the calls of a fleet.
  renewLater(token) {
    clearTimeout(this.renewal);
    const span = spanOf(token);
    if (span === null) return;
    const share = RENEW_SHARE[0] + Math.random() * (RENEW_SHARE[1] - RENEW_SHARE[0]);
    const wait = Math.min(Math.max(1_000, span * 1_000 * share), 2 ** 31 - 1);
    this.renewal = setTimeout(() => this.renew(), wait);
  }

  async renew() {
    const before = this.token;
    if (this.stopped || !(await this.askForCredential()) || this.token === before) return;
    if (this.session?.welcomed && !this.session.ended) {
      this.session.say(JSON.stringify({ credential: this.token }));
    }
  }

  // Events of sessions

  onWelcome(session, welcome) {
    this.policy.firstRetry = welcome.first_retry_ms;
    this.policy.ticket = null;
    this.refused = this.revoked = null;
    if (this.old && this.old !== session && !this.old.ended) this.old.leave(1000);
    this.old = null;
  }

  onNotice({ first_retry_ms: firstRetry }) {
    this.policy.firstRetry = firstRetry;
  }

  onGoaway(session, { retry_ms: retryMs, ticket }) {
    if (session !== this.session && session !== this.old) return;
    this.policy.sentAway(retryMs, ticket);
    if (this.old === session) return;
    this.old = session;
    this.tryAnotherUrl();
    this.over();
  }

  onEnd(session, code, reason, connectedMs) {
    const leaving = session.leaving;
    if (this.old === session) this.old = null;
    if (session !== this.session || leaving) return; // the time of the next attempt is set already
    this.policy.ticket = session.welcomed ? this.policy.ticket : null;
    this.decide(session, code, parse(reason), connectedMs);
    this.over();
  }

  decide(session, code, told, connectedMs) {
    const { policy } = this;
    if (code === 4401 || code === 4403) {
      this.refused = told.detail ?? told.error ?? String(code);
      this.revoked = code === 4403 ? this.token : null;
      this.token = null;
      policy.failed();
    } else if (code === 1013 && Number.isFinite(told.retry_ms)) {
      policy.refused(told.retry_ms, told.ticket);
      this.tryAnotherUrl();
    } else if (code === 1000 && session.welcomed) {
      policy.soon(); // this client closed it to continue with another outbox, or the gateway did
    } else if (OFFENCES.includes(code) || !session.welcomed) {
      if (code === 1008 && session.extended && !session.welcomed) {
        this.outbox.rememberFeatures(false); // an older gateway
      }
      policy.failed();
      this.tryAnotherUrl();
    } else {
      policy.lost(connectedMs);
    }
  }

  tryAnotherUrl() {
    this.urls.push(this.urls.shift());
  }
}

const parse = (text) => {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
};

// Seconds from `iat` to `exp`: the device's own clock may be wrong.
const spanOf = (token) => {
  try {
    const body = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { iat, exp } = JSON.parse(atob(body));
    return Number.isFinite(exp - iat) ? exp - iat : null;
  } catch {
    return null;
  }
};

// The outbox keeps messages until they are settled. Each message keeps its (id, seq).
//
// Each start takes a new random id for the messages that it adds. Messages that were there keep their
// names and count as sent. So no copy of the storage that comes back gives one (id, seq) to two messages.

import { Commands } from "./commands.mjs";
import { Spans } from "./spans.mjs";

const encoder = new TextEncoder();

const freshId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");

export class Outbox {
  // storage: { load(): string | null, save(text: string): void }, durable when `save` returns.
  // The whole outbox is one text, which suits some thousands of messages.
  // spans: see spans.mjs.
  constructor(storage, spans = new Spans()) {
    this.storage = storage;
    this.spans = spans;
    const kept = JSON.parse(storage.load() ?? '{"features":false,"runs":[]}');
    this.features = kept.features; // whether gateways here announce features
    this.state = kept.state ?? null; // { version, desired }: what the device should be like
    this.wantsState = false;
    this.commands = new Commands(kept.commands ?? [], () => this.save());
    this.runs = kept.runs.filter((run) => run.messages.length > 0);
    for (const run of this.runs) {
      run.next = run.messages.at(-1).seq + 1;
      run.sent = run.next - 1; // all of it may have been sent
    }
    this.renew();
  }

  renew() {
    this.current = { id: freshId(), next: 1, sent: 0, messages: [] };
    this.runs.push(this.current);
  }

  save() {
    const runs = this.runs.map(({ id, messages }) => ({ id, messages }));
    const { features, state, commands } = this;
    this.storage.save(JSON.stringify({ features, runs, state, commands: commands.kept() }));
  }

  get size() {
    return this.runs.reduce((sum, run) => sum + run.messages.length, 0);
  }

  rememberFeatures(features) {
    if (features !== this.features) {
      this.features = features;
      this.save();
    }
  }

  // Queue a message. Its data is encoded once, so that no repeat can differ by a byte.
  add(type, data, time) {
    const run = this.current;
    const at = Date.now();
    const span = this.spans.begin(type);
    const message = { seq: run.next++, type, data: JSON.stringify(data ?? null), time, at };
    run.messages.push(message);
    this.save();
    if (span) this.spans.queued(message, span);
  }

  // What the next hello announces: the oldest id that has messages, else the current one.
  head() {
    this.runs = this.runs.filter((run) => run.messages.length > 0 || run === this.current);
    return this.runs[0];
  }

  hello(run) {
    const oldest = run.messages[0];
    const hello = { outbox: run.id, oldest: oldest?.seq ?? run.next };
    if (oldest) hello.age_ms = Math.max(0, Date.now() - oldest.at);
    if (this.features) hello.sent = run.sent;
    if (this.features) hello.receipts = true;
    if (this.features && this.wantsState) hello.state = this.state?.version ?? "";
    return hello;
  }

  // Keep a state, unless it is not newer or no state. Returns whether it is kept.
  takeState(state) {
    const { version, desired } = state;
    if (!this.wantsState || typeof version !== "string" || version === "") return false;
    if (typeof desired !== "object" || desired === null || Array.isArray(desired)) return false;
    if (this.state && !replaces(version, this.state.version)) return false;
    this.state = { version, desired };
    this.save();
    return true;
  }

  // Delete the messages of `run` up to `seq`. A seq beyond those assigned deletes all, and ends the id.
  settle(run, seq) {
    const before = run.messages;
    run.messages = before.filter((message) => message.seq > seq);
    if (seq >= run.next) {
      run.messages = [];
      if (run === this.current) this.renew();
    }
    if (run.messages.length !== before.length) this.save();
    for (const message of before.slice(0, before.length - run.messages.length)) {
      this.spans.ended(message);
    }
  }

  // The message is no event: its span ends with the error.
  rejected(run, seq, error) {
    const message = run.messages.find((each) => each.seq === seq);
    if (message) this.spans.ended(message, `rejected: ${error}`);
  }

  remove(run, seq) {
    run.messages = run.messages.filter((message) => message.seq !== seq);
    this.save();
  }
}

// Within an epoch (the text before the last `-`) a higher number replaces a lower one. Another epoch
// replaces any.
const replaces = (version, held) => {
  const [, epoch, number] = /^(.*-|)(.*)$/s.exec(version);
  const [, heldEpoch, heldNumber] = /^(.*-|)(.*)$/s.exec(held);
  const numbers = /^[0-9]{1,20}$/.test(number) && /^[0-9]{1,20}$/.test(heldNumber);
  if (epoch === heldEpoch && numbers) return BigInt(number) > BigInt(heldNumber);
  return version !== held;
};

export const bytesOf = (text) => encoder.encode(text).length;

// A message in its form on the wire.
export const textOf = ({ seq, type, data, time }, trace) =>
  `{"seq":${seq},"type":${JSON.stringify(type)},"data":${data}` +
  (time === undefined ? "" : `,"time":${JSON.stringify(time)}`) +
  (trace === undefined ? "}" : `,"trace":${JSON.stringify(trace)}}`);

// One session on one WebSocket: what was received, and what may be sent.

import { bytesOf, textOf } from "./outbox.mjs";

const HELLO_PATIENCE_MS = 90_000;

export class Session {
  // device: { outbox, onWelcome, onNotice, onGoaway, onReject, onState, onEnd, outcomeOf, handOver }
  constructor(socket, device) {
    this.socket = socket;
    this.device = device;
    this.outbox = device.outbox;
    this.welcomed = false;
    this.leaving = false; // after goaway: acks are received, nothing is sent
    this.ended = false;
    this.held = false;
    this.waiting = true; // for welcome, or for the answer to a further hello
    this.passed = false; // no further message of this id can be sent in order
    this.keepalive = 30_000;
    this.heardAt = this.saidAt = this.openedAt = performance.now();
    socket.onopen = () => this.greet();
    socket.onmessage = (event) => this.hear(event.data);
    socket.onclose = (event) => this.end(event.code, event.reason);
    socket.onerror = () => {}; // a close follows
    this.watch = setInterval(() => this.look(), 100);
  }

  say(text) {
    if (this.socket.readyState === 1) this.socket.send(text);
  }

  greet() {
    this.run = this.outbox.head();
    const hello = this.outbox.hello(this.run);
    this.extended = "sent" in hello;
    this.saidAt = performance.now();
    this.say(JSON.stringify({ hello }));
  }

  end(code, reason) {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.watch);
    this.device.onEnd(this, code, reason, performance.now() - this.openedAt);
  }

  // Close, without waiting for a peer that may be gone.
  leave(code = 1006) {
    this.socket.close(1000);
    this.end(code, "");
  }

  // A page sees no pings. It finds a dead connection by acks and answers that do not arrive.
  look() {
    const now = performance.now();
    const owed = this.welcomed && !this.held && this.sent > this.acked;
    const silent = now - Math.max(this.heardAt, this.saidAt);
    if (owed && silent > 2 * this.keepalive) this.leave();
    if (this.waiting && this.run && silent > HELLO_PATIENCE_MS) this.leave();
  }

  // Receiving

  hear(text) {
    if (this.ended) return;
    this.heardAt = performance.now();
    const frame = JSON.parse(text);
    if (frame.welcome) this.onWelcome(frame.welcome);
    if (!this.welcomed) return this.leave(1002);
    if (frame.resume) this.resume(frame.resume, frame.credit ?? 0);
    if (frame.ack !== undefined) this.onAck(frame.ack, frame.credit ?? 0);
    if (frame.hold) this.held = true;
    if (frame.reject) this.reject(frame.reject);
    if (frame.notice) this.device.onNotice(frame.notice);
    if (frame.command) this.onCommand(frame.command);
    if (frame.settled) this.outbox.commands.settled(frame.settled);
    const state = frame.state ?? frame.welcome?.state;
    if (state && this.outbox.takeState(state)) this.device.onState(state);
    if (frame.goaway) {
      this.leaving = true;
      this.device.onGoaway(this, frame.goaway);
    }
    this.pump();
  }

  onWelcome(welcome) {
    this.welcomed = true;
    this.keepalive = welcome.keepalive_ms ?? this.keepalive;
    this.features = welcome.features ?? [];
    this.limits = {
      message: welcome.max_message_bytes ?? 65_536,
      frame: welcome.max_frame_bytes ?? 65_536,
      messages: welcome.max_messages_per_frame ?? 1_000,
    };
    this.outbox.rememberFeatures(welcome.features !== undefined);
    this.resume(welcome.resume, welcome.credit);
    this.device.onWelcome(this, welcome);
    if (this.settles) for (const each of this.outbox.commands.results()) this.sayFrame(each);
    this.device.handOver();
  }

  // Whether the gateway hears receipts, and says when a result is stored.
  get settles() {
    return this.features.includes("receipts");
  }

  resume({ seq }, credit) {
    this.waiting = this.held = this.passed = false;
    if (seq >= this.run.next) this.passed = true;
    this.outbox.settle(this.run, seq);
    this.acked = this.sent = seq;
    this.limit = seq + credit;
  }

  onAck(seq, credit) {
    this.held = false;
    this.acked = Math.max(this.acked, seq);
    this.limit = Math.max(this.limit, this.acked + credit);
    this.outbox.settle(this.run, this.acked);
  }

  reject(reject) {
    this.outbox.rejected(this.run, reject.seq, reject.error);
    this.device.onReject(reject);
  }

  async onCommand(command) {
    if (!command.queued) {
      const outcome = await this.device.outcomeOf(command);
      this.sayFrame({ result: { id: command.id, ...outcome } });
      return;
    }
    let answers;
    try {
      answers = this.outbox.commands.arrive(command);
    } catch {
      return; // the storage is full: without a receipt the gateway keeps the command
    }
    for (const each of answers) if (each.result || this.settles) this.sayFrame(each);
    this.device.handOver();
  }

  sayFrame(frame) {
    if (!this.ended) this.say(JSON.stringify(frame));
  }

  // Sending

  // Send the messages that may be sent now. Called after every change.
  pump() {
    while (this.welcomed && !this.ended && !this.waiting && !this.leaving) {
      if (this.held) return;
      if (this.passed) return this.passOn();
      const batch = this.nextBatch();
      if (batch === null) continue;
      if (batch.length === 0) return this.passOn();
      this.sent = this.run.sent = Math.max(this.run.sent, batch.at(-1).seq);
      this.sent = batch.at(-1).seq;
      this.saidAt = performance.now();
      const texts = batch.map((message) => this.textOf(message));
      this.say(texts.length === 1 ? texts[0] : `[${texts.join(",")}]`);
    }
  }

  // The next messages that fit. null: a message was given up, so call again.
  nextBatch() {
    const { frame, message: messageMax, messages } = this.limits;
    const window = Math.min(this.limit - this.sent, messages);
    const batch = [];
    let size = 2;
    for (const message of this.run.messages) {
      if (message.seq <= this.sent) continue;
      if (batch.length >= window || message.seq !== this.sent + batch.length + 1) break;
      const bytes = bytesOf(this.textOf(message)) + 1;
      if (bytesOf(message.data) > messageMax || bytes - 1 > frame) {
        if (batch.length > 0) break;
        this.reject({ seq: message.seq, error: "too_large", detail: "for this gateway" });
        this.outbox.remove(this.run, message.seq);
        return null;
      }
      if (batch.length > 0 && size + bytes > frame) break;
      size += bytes;
      batch.push(message);
    }
    return batch;
  }

  // A message with its trace, if the gateway takes traces and a frame has room for it.
  textOf(message) {
    const trace = this.features.includes("trace") ? this.outbox.spans.traceOf(message) : undefined;
    if (trace === undefined) return textOf(message);
    const text = textOf(message, trace);
    return bytesOf(text) > this.limits.frame ? textOf(message) : text;
  }

  // This id is empty, or a hole follows. Once everything is settled, continue with what follows.
  passOn() {
    const next = this.run.messages.find((message) => message.seq > this.sent);
    if (next && next.seq === this.sent + 1 && !this.passed) return; // only the credit is used up
    if (this.acked < this.sent) return;
    const head = this.outbox.head();
    if (head.messages.length === 0) return; // nothing to send at all
    if (head === this.run && head.messages[0].seq === this.sent + 1 && !this.passed) return;
    if (!this.features.includes("outboxes")) {
      this.socket.close(1000);
      return this.end(1000, "");
    }
    this.waiting = true;
    this.greet();
  }
}

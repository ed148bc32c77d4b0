// The adapter to clients/conformance: reads orders on stdin and writes events on stdout.

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { Device } from "./tidegate.mjs";

const path = process.env.TIDEGATE_OUTBOX;
const say = (event, more = {}) => process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);

const storage = {
  load: () => (existsSync(path) ? readFileSync(path, "utf8") : null),
  save: (text) => {
    const file = openSync(`${path}.new`, "w", 0o600);
    writeSync(file, text);
    fsyncSync(file);
    closeSync(file);
    renameSync(`${path}.new`, path);
  },
};

const asking = [];
const device = new Device({
  url: process.env.TIDEGATE_URL,
  credential: () => {
    say("credential");
    return new Promise((resolve) => asking.push(resolve));
  },
  storage,
  onReject: ({ error }) => say("rejected", { error }),
  onCommand: ({ id, type, data, queued, trace }) => {
    if (queued) say("command", { id });
    if (trace !== null) say("commanded", { trace });
    return type === "hang" ? new Promise(() => {}) : data;
  },
  onState: ({ version, desired }) => say("state", { version, desired }),
  beginSpan: () => {
    const traceparent = process.env.TIDEGATE_TRACE; // of all messages, if the test sets one
    return traceparent ? { traceparent, end: (error) => say("span", { error }) } : null;
  },
  onEnded: (error) => say("ended", { error }),
  scale: Number(process.env.TIDEGATE_BACKOFF_SCALE),
});

const can = ["subprotocol", "refusal_close", "durable", "outboxes", "renew"];
say("ready", { can: [...can, "two_connections", "commands", "receipts", "state", "deadman"] });
device.start();
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.do === "send") {
    device.send(order.type, order.data);
    say("queued");
  } else if (order.do === "credential") {
    asking.shift()?.(order.token);
  } else if (order.do === "stop") {
    await device.stop();
    setTimeout(() => process.exit(0), 200); // so that the closes can be sent
    break;
  }
}

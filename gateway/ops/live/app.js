// The live page. Whatever comes from the gateway is put in place as text, never as markup.
"use strict";

const KEPT = 300; // snapshots, one a second
const SILENT_MS = 5000;
const $ = (id) => document.getElementById(id);
let token = ""; // in memory only
let series = [];
let charts = [];

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A formatter takes milliseconds to make, so each is made once, and none before the page has asked
// for its first snapshot.
const formatters = {};
const formatter = (name, make) => formatters[name] ??= make();
// With "negative", a value that rounds to nothing is 0 and not -0.
const number = (value, digits = 0) => value === null || value === undefined || !isFinite(value)
  ? "–" : formatter(digits, () => new Intl.NumberFormat(undefined, { maximumFractionDigits: digits, signDisplay: "negative" })).format(value);
// An axis has room for six characters.
const short = (value) => Math.abs(value) < 10000 ? number(value, 2)
  : formatter("short", () => new Intl.NumberFormat(undefined, { notation: "compact" })).format(value);
const clock = (seconds) =>
  formatter("clock", () => new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" })).format(seconds * 1000);

// Asking the gateway

function request(path, order, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers, signal, cache: "no-store", credentials: "omit" };
  if (order) {
    options.method = "POST";
    options.body = JSON.stringify(order);
    headers["Content-Type"] = "application/json";
  }
  return fetch(path, options);
}

async function ask(path, order) {
  const response = await request(path, order);
  const answer = await response.json();
  if (!response.ok) {
    if (response.status === 401) $("sign-in").hidden = false;
    throw new Error(answer.detail || `HTTP ${response.status}`);
  }
  return answer;
}

// The stream of snapshots

function say(state, text) {
  $("link").className = `pill ${state}`;
  $("link").textContent = text;
}

async function watch(retry) {
  const abort = new AbortController();
  let timer;
  const alive = () => { clearTimeout(timer); timer = setTimeout(() => abort.abort(), SILENT_MS); };
  alive();
  try {
    const response = await request("/events", undefined, abort.signal);
    if (!response.ok) {
      const { detail } = await response.json();
      if (response.status === 401) $("sign-in").hidden = false;
      headline("stop", "This page may not show what happens", detail);
      throw new Error(detail);
    }
    $("sign-in").hidden = true;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      alive();
      retry.after = 500;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) take(JSON.parse(event.slice("data: ".length)));
    }
  } finally {
    clearTimeout(timer);
  }
}

async function run() {
  const retry = { after: 500 };
  for (;;) {
    let why = "connection lost";
    try { await watch(retry); } catch (error) {
      if (error.name !== "AbortError" && error.name !== "TypeError") why = error.message;
    }
    const wait = retry.after * (0.5 + Math.random());
    retry.after = Math.min(retry.after * 2, 15000);
    const last = series.length ? `, shown as of ${clock(series.at(-1).at)}` : "";
    say("down", `${why}${last}; trying again`);
    document.body.dataset.live = "no";
    await new Promise((resolve) => { setTimeout(resolve, wait); wake = resolve; });
  }
}
let wake = () => {};

function take(event) {
  if (event.history) {
    const { names, rows } = event.history;
    series = rows.map((row) => Object.fromEntries(names.map((name, index) => [name, row[index]])));
    return;
  }
  if (event.failed) { say("down", "the gateway could not take a snapshot"); return; }
  const last = series.at(-1); // the first snapshot of a stream is in its history too
  if (!last || event.series.at > last.at) series.push(event.series);
  if (series.length > KEPT) series.shift();
  say("up", "live");
  document.body.dataset.live = "yes";
  show(event);
}

// What is shown

function rate(name) {
  const last = series.at(-1), before = series.at(-6) || series[0];
  const seconds = last.at - before.at;
  return seconds > 0 ? Math.max(0, (last[name] - before[name]) / seconds) : null;
}

function headline(kind, text, more) {
  $("banner").className = kind;
  if ($("headline").textContent !== text) $("headline").textContent = text;
  $("subline").textContent = more || "";
}

const LIMITS = {
  ceiling: "nothing holds R down", puback_p99: "slow PubAcks hold R down",
  publish_backlog: "the publish backlog holds R down", loop_lag: "a busy event loop holds R down",
};

// A worker that admits nobody does not stop the others, so the line on top must name it.
const condition = (worker) => !worker.state ? "gives no answer" : worker.not_ready || (worker.state === "serving" ? "ready" : worker.state);
const idle = ({ workers = [] }) => workers.filter((worker) => condition(worker) !== "ready")
  .map((worker) => `worker ${worker.worker}: ${condition(worker)}`);

function words({ status, at }) {
  const admission = status.admission;
  const steered = Object.entries(admission.steered)
    .map(([name, fact]) => `${name} is ${fact.value} until ${clock(fact.until)}, by ${fact.by}`);
  const limit = [LIMITS[admission.limited_by] || admission.limited_by, ...steered, ...idle(status)].join("; ");
  if (status.state === "draining") {
    return ["stop", `This node drains: ${number(status.devices)} devices left`, "each gets a slot elsewhere"];
  }
  if (status.not_ready) {
    return ["stop", `No device is admitted: ${status.not_ready}`, "connected devices stay; config/README.md says what to do"];
  }
  const waiting = Math.round(admission.lead_s * admission.rate_per_s);
  if (admission.lead_s > 1 && waiting > 0) {
    return ["storm", `Storm: ${number(waiting)} devices wait, over at ${clock(at + admission.lead_s)}`, `R is ${number(admission.rate_per_s, 1)} a second; ${limit}`];
  }
  return ["calm", `Calm: ${number(status.devices)} devices are connected, none waits`, limit];
}

function show(event) {
  const { status, series: now } = event;
  const admission = status.admission;
  const workers = status.workers ? `, ${status.workers.length} workers${status.rolling_restart ? ", which restart one after the other" : ""}` : "";
  $("node").textContent = `node ${status.node}, ${status.state}, version ${status.version}${workers}`;
  headline(...words(event));
  tiles([
    ["devices", number(status.devices)],
    ["wait for a slot", number(admission.lead_s * admission.rate_per_s)],
    ["seconds to a free slot", number(admission.lead_s, 1)],
    ["R, admissions a second", number(admission.rate_per_s, 1)],
    ["admitted a second", number(rate("admitted"), 1)],
    ["refused a second", number(rate("refused"), 1)],
    ["messages a second", number(rate("messages"))],
    ["PubAck p99, ms", number(now.ack_p99_ms, 1)],
    ["not settled yet", number(status.pending.messages)],
    ["credit of a device", number(now.credit)],
    ["dead letters so far", number(now.dead)],
    ["loop lag, ms", number(now.loop_lag_ms, 1)],
  ]);
  workersTable(event);
  tables(event);
  if (charts.length) draw();
  else afterFrame(loadCharts); // the words are on the screen first
}

function tiles(wanted) {
  const room = $("tiles");
  wanted.forEach(([label, value], index) => {
    let tile = room.children[index];
    if (!tile) {
      tile = element("div", undefined, "tile");
      tile.append(element("b"), element("span", label, "quiet"));
      room.append(tile);
    }
    if (tile.firstChild.textContent === value) return;
    tile.firstChild.textContent = value;
    tile.firstChild.style.fontSize = `${Math.min(1.7, 9.5 / value.length)}rem`; // it stays in its tile
  });
}

function table(title, rows) {
  const card = element("div", undefined, "card");
  const body = element("table");
  for (const [name, value] of rows) {
    const row = element("tr");
    row.append(element("td", name), element("td", String(value)));
    body.append(row);
  }
  card.append(element("h2", title), rows.length ? body : element("p", "none", "quiet"));
  return card;
}

// Of a gateway of several workers. All other figures of the page are those of all workers together.

const WORKER_COLUMNS = ["worker", "state", "devices", "admitted a second", "messages a second", "not settled yet", "PubAck p99, ms", "loop lag, ms", "restarts"];
let partsBefore = {};
let workerOf = new Map(); // by the name of its node
const place = (node) => workerOf.has(node) ? `worker ${workerOf.get(node)}` : `node ${node}`;

function workersTable({ status, parts = {} }) {
  $("workers").hidden = !status.workers;
  if (!status.workers) return;
  workerOf = new Map(status.workers.map((worker) => [worker.node, worker.worker]));
  const head = element("tr");
  head.append(...WORKER_COLUMNS.map((name) => element("th", name)));
  const rows = status.workers.map((worker) => {
    const now = parts[worker.worker], before = partsBefore[worker.worker];
    const seconds = now && before ? now.at - before.at : 0;
    const each = (name) => seconds > 0 ? number(Math.max(0, now[name] - before[name]) / seconds, 1) : "–";
    const figure = (name, digits) => now ? number(now[name], digits) : "–";
    const said = condition(worker);
    const row = element("tr");
    row.append(
      element("td", String(worker.worker)), element("td", said, said === "ready" ? "good" : "bad"),
      ...[figure("devices"), each("admitted"), each("messages"), figure("pending"), figure("ack_p99_ms", 1), figure("loop_lag_ms", 1), number(worker.restarts)]
        .map((text) => element("td", text)),
    );
    [...row.children].forEach((cell, index) => { cell.dataset.name = WORKER_COLUMNS[index]; }); // shown on a phone
    return row;
  });
  partsBefore = parts;
  const body = element("table");
  body.append(head, ...rows);
  $("workers").replaceChildren(element("h2", "Workers"), body);
}

function tables({ status, refused, dead, lanes }) {
  const { stream, admission } = status;
  const most = (rows) => [...rows].sort((a, b) => b[1] - a[1]).map(([name, count]) => [name, number(count)]);
  const made = [
    table("Refused, by reason", most(refused)),
    table("Dead letters, by error", most(dead)),
    table("Lanes", lanes.map(([waiting, flying, ms, lane = "", worker], index) => [
      worker ? `worker ${worker}, lane ${lane}` : `lane ${index + 1}`, `${number(waiting)} wait, ${flying ? `${number(flying)} in flight for ${number(ms)} ms` : "none in flight"}`,
    ])),
    table("Stream", [
      ["connected", stream.connected ? "yes" : "no"], ["durability", stream.durability],
      ["strategy", stream.strategy], ["replicas", stream.replicas],
      ["bytes not settled", number(status.pending.bytes)], ["last error", stream.last_error || "none"],
    ]),
    table("Admission", [
      ["R at most, at least", `${number(admission.rate_ceiling_per_s, 1)}, ${number(admission.rate_floor_per_s, 1)}`],
      ["burst", number(admission.burst)], ["parked", number(admission.parked)],
      ["revoked", number(admission.revoked)], ["connections", `${number(status.connections)} of ${number(status.connections_max)}`],
      ["first retry over, s", number(status.first_retry_ms / 1000, 1)],
    ]),
  ];
  if (admission.fleet) {
    const { fleet } = admission;
    made.push(table("Fleet", [
      [status.workers ? "nodes; each worker is one" : "nodes", number(fleet.nodes)], ["Redis", fleet.redis_up ? "answers" : fleet.redis_trouble || "away"],
      ["this node is alone", fleet.alone ? "yes" : "no"], ["clock ahead, s", number(fleet.clock.wall_ahead_s, 3)],
      ["ticket secrets differ", fleet.ticket_secrets.differ ? "yes" : "no"],
    ]));
  }
  $("tables").replaceChildren(...made);
}

// Charts

const CHARTS = [
  ["Knocks a second", [["refused", "--red", "refused", true], ["admitted", "--green", "admitted", true]]],
  ["R and the wait", [["R a second", "--blue", "rate"], ["seconds to a free slot", "--amber", "lead"]]],
  ["Devices", [["connected", "--blue", "devices"]]],
  ["Messages a second", [["received", "--blue", "messages", true], ["dead letters", "--red", "dead", true]]],
  ["Milliseconds", [["PubAck p99", "--green", "ack_p99_ms"], ["loop lag", "--red", "loop_lag_ms"]]],
  ["Credit of one device, messages", [["may be outstanding", "--green", "credit"]]],
  ["Backlog, messages", [["not settled yet", "--amber", "pending"]]],
  ["Lanes, messages", [["in flight", "--blue", "in_flight"], ["wait", "--amber", "waiting"], ["wait in the fullest lane", "--red", "fullest"]]],
];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function columns(lines) {
  const at = series.map((each) => each.at);
  return [at, ...lines.map(([, , name, total]) => series.map((each, index) => {
    if (!total) return each[name];
    const before = series[index - 1];
    return before && each.at > before.at ? Math.max(0, (each[name] - before[name]) / (each.at - before.at)) : null;
  }))];
}

const afterFrame = (action) => requestAnimationFrame(() => setTimeout(action));

function loadCharts() {
  if ($("library")) return;
  const library = element("script");
  library.id = "library";
  library.src = "/live/uplot.js";
  library.addEventListener("load", draw);
  library.addEventListener("error", () => library.remove()); // the next snapshot tries again
  document.head.append(library);
}

function draw() {
  if (!window.uPlot || !series.length) return;
  if (!charts.length) build();
  for (const { plot, lines } of charts) plot.setData(columns(lines));
}

function build() {
  const room = $("charts");
  room.replaceChildren();
  const cards = CHARTS.map(([title]) => {
    const card = element("div", undefined, "card");
    card.append(element("h2", title));
    return card;
  });
  room.append(...cards); // all of them: the width of one depends on the others
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize); // larger on a wall
  charts = CHARTS.map(([, lines], index) => {
    const card = cards[index];
    const axis = { font: `${0.75 * rem}px system-ui, sans-serif`, stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const time = { ...axis, size: 2.2 * rem, space: 6.5 * rem, values: (_plot, moments) => moments.map(clock) };
    const plot = new uPlot({
      width: Math.max(200, card.clientWidth - 2 * parseFloat(getComputedStyle(card).paddingLeft)), height: 12 * rem,
      padding: [null, 1.8 * rem, null, null], // half of a time, which may stand at the very right
      legend: { live: false },
      scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [time, { ...axis, size: 3.6 * rem, values: (_plot, figures) => figures.map(short) }],
      series: [{}, ...lines.map(([label, stroke]) => ({ label, stroke: colour(stroke), width: 2, points: { show: false }, spanGaps: true }))],
    }, columns(lines), card);
    return { plot, lines };
  });
}

const rebuild = () => { for (const { plot } of charts) plot.destroy(); charts = []; draw(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", rebuild);
let resizing;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(rebuild, 150); });

// A device

const STATES = { greeting: "admitted, has not said hello yet", resuming: "admitted, its place in the stream is being looked up" };
const ago = (seconds) => seconds === null || seconds === undefined ? "none" : `${number(seconds, 1)} s ago`;

async function lookUp() {
  const tenant = $("tenant").value.trim() || "default", device = $("device").value.trim();
  if (!device) return;
  const found = $("found");
  try {
    const path = `/devices/${encodeURIComponent(tenant)}/${encodeURIComponent(device)}`;
    describe(await ask(path), found);
  } catch (error) { found.replaceChildren(element("p", error.message, "bad")); }
}

function describe(answer, found) {
  const { session } = answer;
  const name = `${answer.tenant}/${answer.device}`;
  const parts = [element("p", session
    ? `${name} is connected to ${place(answer.node)}: ${STATES[session.state] || session.state}${session.leaving ? ", leaving" : ""}`
    : `${name} is not connected`, session ? "good" : "warn")];
  const { presence } = answer;
  if (presence) parts.push(element("p", `stored presence: ${presence.online ? "online" : "offline"} since ${new Date(presence.time).toLocaleString()}, ${presence.cause}, by ${place(presence.node)}`, "quiet"));
  if (answer.parked) parts.push(element("p", `it waits in the handshake at ${place(answer.parked)}, for a slot that is near`, "warn"));
  if (session) {
    parts.push(element("p", `acked up to ${session.acked}, credit ${session.credit}, ${session.unsettled} not settled yet`));
    parts.push(element("p", `last message: ${ago(session.last_message_s_ago)}, last ack: ${ago(session.last_ack_s_ago)}${session.id ? `, session ${session.id}` : ""}`, "quiet"));
  }
  if (answer.revoked_until) parts.push(element("p", `revoked until ${new Date(answer.revoked_until).toLocaleString()}`, "bad"));
  const events = [
    ...answer.refusals.map((each) => [each, `refused: ${[each.error, each.reason].filter(Boolean).join("/")}${each.retry_ms ? `, come back in ${number(each.retry_ms / 1000, 1)} s` : ""}${each.verified ? "" : " (not verified)"}`]),
    ...answer.closes.map((each) => [each, `closed: ${each.cause}`]),
  ].sort((a, b) => (a[0].at < b[0].at ? 1 : -1));
  parts.push(table("Last refusals and closes", events.map(([each, text]) => [`${clock(Date.parse(each.at) / 1000)} ${text}`, place(each.node)])));
  if (answer.nodes_answered < answer.nodes) parts.push(element("p", `only ${answer.nodes_answered} of ${answer.nodes} nodes have answered`, "warn"));
  const press = element("p");
  const order = { tenant: answer.tenant, device: answer.device };
  press.append(
    button("Disconnect", "/disconnect", () => order, session === null),
    " ", button("Revoke for a day", "/revoke", () => ({ ...order, until: Date.now() / 1000 + 86400 })),
    " ", button("Let it in again", "/unrevoke", () => order, !answer.revoked_until),
  );
  parts.push(press);
  found.replaceChildren(...parts);
}

// Orders

async function give(path, order, question) {
  if (question && !confirm(question)) return;
  try {
    const answer = await ask(path, order);
    $("ordered").className = "good";
    $("ordered").textContent = `${path.slice(1)}: ${JSON.stringify(answer)}`;
    if (path !== "/drain") lookUp();
  } catch (error) {
    $("ordered").className = "bad";
    $("ordered").textContent = `${path.slice(1)}: ${error.message}`;
  }
}

function button(text, path, order, disabled) {
  const made = element("button", text);
  made.type = "button";
  made.disabled = Boolean(disabled);
  made.addEventListener("click", () => give(path, order(), `${text}: are you sure?`));
  return made;
}

const onSubmit = (id, action) => $(id).addEventListener("submit", (event) => { event.preventDefault(); action(); });
onSubmit("search", lookUp);
onSubmit("sign-in", () => { token = $("token").value.trim(); $("token").value = ""; wake(); });
onSubmit("steer", () => give("/steer", { rate_per_s: Number($("rate").value), for_s: Number($("for").value) }, "Change R on all nodes?"));
$("unsteer").addEventListener("click", () => give("/unsteer", {}, "Back to the settings on all nodes?"));
$("drain").addEventListener("click", () => give("/drain", {}, "Send every device of this node elsewhere, and stop it?"));
addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing) { event.preventDefault(); $("device").focus(); }
  if (event.key === "Escape") { $("device").value = ""; $("found").replaceChildren(); document.activeElement.blur(); }
});

run();

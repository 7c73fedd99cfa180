// The operator's page. Law: it only draws what the server tells; the token travels in the first
// message, never in an address, where logs would keep it. The events are described in ../README.md.

const $ = (id) => document.getElementById(id);

const KEEP = 180; // seconds that the charts show, and ...
const FIRST = 60; // as long as there are no more
const SILENT = 3; // seconds without a word: a process may have gone
const GONE = 15; // seconds: it has, and no more is shown of it
const WAIT = 2000; // ms between two attempts to connect
const SVG = "http://www.w3.org/2000/svg";

const CODES = {
  1000: "left",
  1001: "went away, or the server did",
  1005: "no code given",
  1006: "lost",
  1009: "message too big",
  1011: "the server failed",
  1012: "the server restarts",
  1013: "too slow, or out of order",
  4000: "not let in",
  4001: "went on in another window",
  4003: "wrong token",
};

// -- connection ------------------------------------------------------------------------------

let token = takeToken();
let shown = false;

// A link may bring it behind the #, which browsers send to nobody.
function takeToken() {
  const linked = decodeURIComponent(location.hash.slice(1));
  if (linked) history.replaceState(null, "", location.pathname);
  try {
    if (linked) sessionStorage.setItem("status-token", linked);
    return linked || (sessionStorage.getItem("status-token") ?? "");
  } catch {
    return linked;
  }
}

function connect() {
  showState("connecting", "connecting");
  const url = new URL("/status/live", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(token);
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = (event) => {
    if (event.code === 4003) return ask("This is not the token.");
    showState("waiting", `closed: ${event.code}; connecting again`);
    setTimeout(connect, WAIT);
  };
}

function ask(why) {
  token = "";
  try { sessionStorage.removeItem("status-token"); } catch { /* it was not kept */ }
  document.body.dataset.view = "door";
  $("refusal").textContent = why;
  $("refusal").hidden = !why;
  showState("idle", "not connected");
  $("token").focus();
}

$("enter").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value;
  $("token").value = "";
  try { sessionStorage.setItem("status-token", token); } catch { /* asked again next time */ }
  connect();
};

function showState(state, words) {
  $("status").dataset.state = state;
  $("status").textContent = words;
}

// -- numbers ---------------------------------------------------------------------------------

const processes = new Map(); // name -> { now: the last event, heard: when, rates: { in, out } }
const past = []; // of all processes together, one entry a second

function receive(event) {
  const before = processes.get(event.process);
  const seconds = before ? event.uptime - before.now.uptime : 0;
  const rate = (name) => (seconds > 0 ? Math.max(0, (event[name] - before.now[name]) / seconds) : 0);
  processes.set(event.process, {
    now: event,
    heard: Date.now(),
    rates: { in: rate("messages_in"), out: rate("messages_out") },
  });
  if (!shown) document.body.dataset.view = "board";
  shown = true;
  document.body.dataset.view = "board";
  showState("open", "live");
}

function tick() {
  if (!shown) return;
  for (const [name, { heard }] of processes) if (Date.now() - heard > GONE * 1000) processes.delete(name);
  const all = [...processes.values()];
  const sum = (pick) => all.reduce((total, each) => total + pick(each), 0);
  const now = {
    open: sum(({ now }) => now.open),
    members: sum(({ now }) => now.members),
    waiting: sum(({ now }) => now.outbox + now.backlog),
    in: sum(({ rates, heard }) => (isSilent(heard) ? 0 : rates.in)),
    out: sum(({ rates, heard }) => (isSilent(heard) ? 0 : rates.out)),
    evicted: sum(({ now }) => now.evicted),
    accepted: sum(({ now }) => now.accepted),
    refused: sum(({ now }) => total(now.refused)),
    bytes: sum(({ now }) => now.bytes_out),
  };
  past.push(now);
  if (past.length > KEEP) past.shift();
  draw(all, now);
}

const isSilent = (heard) => Date.now() - heard > SILENT * 1000;
const total = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

function merge(objects) {
  const merged = new Map();
  for (const entries of objects) for (const [key, count] of entries) merged.set(key, (merged.get(key) ?? 0) + count);
  return [...merged];
}

// -- drawing ---------------------------------------------------------------------------------

const number = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (count >= 1024 && unit < 3) { count /= 1024; unit += 1; }
  return `${count < 10 && unit ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

const milliseconds = (seconds) => (seconds === null ? "–" : `${(seconds * 1000).toPrecision(2)} ms`);

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

function draw(all, now) {
  const rooms = merge(all.map(({ now }) => now.busiest));
  const roomCount = Math.max(rooms.length, ...all.map(({ now }) => now.rooms), 0);
  $("trouble").hidden = !all.some(({ now }) => now.trouble);
  tiles([
    ["Connections", number.format(now.open), `${number.format(now.accepted)} so far`],
    ["Members", number.format(now.members), `in ${roomCount} ${roomCount === 1 ? "room" : "rooms"}`],
    ["Messages/s", number.format(now.out), `${number.format(now.in)} received`],
    ["Waiting", bytes(now.waiting), "unread by peers"],
    ["Evicted", number.format(now.evicted), "too slow", now.evicted > 0],
    ["Refused", number.format(now.refused), "handshakes"],
  ]);
  $("rate-out").textContent = number.format(now.out);
  $("rate-in").textContent = number.format(now.in);
  $("now-open").textContent = number.format(now.open);
  $("now-waiting").textContent = bytes(now.waiting);
  chart($("rate"), [["one", past.map((each) => each.out)], ["two", past.map((each) => each.in)]], number.format.bind(number));
  chart($("connections"), [["one", past.map((each) => each.open)]], number.format.bind(number));
  chart($("waiting"), [["three", past.map((each) => each.waiting)]], bytes, 1024);
  drawRoundTrips(all);
  rows($("closed"), merge(all.map(({ now }) => Object.entries(now.closed))), (code) => CODES[code] ?? "", "Nobody has left yet.");
  rows($("refused"), merge(all.map(({ now }) => Object.entries(now.refused))), null, "Nobody was refused.");
  rows($("busiest"), rooms, null, "Nobody is in a room.");
  drawProcesses(all);
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function tiles(facts) {
  $("tiles").replaceChildren(...facts.map(([label, value, more, alarm]) => {
    const tile = element("div", alarm ? "tile alarm" : "tile");
    tile.append(element("span", "label", label), element("span", "value", value), element("span", "more", more));
    return tile;
  }));
}

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function canvas(figure) {
  let svg = figure.firstElementChild;
  if (!svg) figure.append(svg = shape("svg", {}));
  svg.replaceChildren();
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return { svg, width, height };
}

// The next of 1, 2, 5, 10, 20, ... that is not below: a scale people can read.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

function chart(figure, series, label, unit = 1) {
  const { svg, width, height } = canvas(figure);
  const [left, right, top, bottom] = [52, 4, 8, 18];
  const span = Math.min(KEEP, Math.max(FIRST, past.length));
  const highest = Math.max(...series.flatMap(([, values]) => values)) / unit;
  const ceiling = roundUp(Math.max(highest, 4)) * unit;
  const x = (index, length) => width - right - ((length - 1 - index) * (width - left - right)) / (span - 1);
  const y = (value) => height - bottom - (value / ceiling) * (height - top - bottom);
  for (const share of [0, 0.5, 1]) {
    const at = y(ceiling * share);
    svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(shape("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, label(ceiling * share)));
  }
  for (const [ago, anchor] of [[span, "start"], [span / 2, "middle"], [0, "end"]]) {
    const at = width - right - (ago / span) * (width - left - right);
    svg.append(shape("text", { x: at, y: height - 2, "text-anchor": anchor }, ago ? `−${Math.round(ago)} s` : "now"));
  }
  for (const [colour, values] of series) {
    const points = values.map((value, index) => `${x(index, values.length).toFixed(1)},${y(value).toFixed(1)}`);
    const [first, last] = [x(0, values.length).toFixed(1), x(values.length - 1, values.length).toFixed(1)];
    svg.append(shape("polygon", { class: `area fill-${colour}`, points: `${first},${y(0)} ${points.join(" ")} ${last},${y(0)}` }));
    svg.append(shape("polyline", { class: `line stroke-${colour}`, points: points.join(" ") }));
  }
}

function drawRoundTrips(all) {
  const bounds = all[0]?.now.rtt_bounds ?? [];
  const counts = Array.from({ length: bounds.length + 1 }, (_, index) => all.reduce((sum, { now }) => sum + now.rtt[index], 0));
  const worst = (name) => Math.max(...all.map(({ now }) => now[name] ?? -1));
  for (const [id, name] of [["rtt-median", "rtt_median"], ["rtt-p95", "rtt_p95"]])
    $(id).textContent = milliseconds(worst(name) < 0 ? null : worst(name));
  const { svg, width, height } = canvas($("rtt"));
  const [top, bottom] = [16, 18];
  const step = width / counts.length;
  const highest = Math.max(1, ...counts);
  counts.forEach((count, index) => {
    const tall = count ? Math.max(3, (count / highest) * (height - top - bottom)) : 2;
    const middle = (index + 0.5) * step;
    svg.append(shape("rect", {
      class: count ? "some" : "none", x: index * step + step * 0.12, y: height - bottom - tall, width: step * 0.76, height: tall, rx: Math.min(3, tall / 2),
    }));
    if (count) svg.append(shape("text", { class: "count", x: middle, y: height - bottom - tall - 4, "text-anchor": "middle" }, number.format(count)));
    const label = index < bounds.length ? `${bounds[index]}` : `>${bounds[index - 1]}`;
    if (index % 2 || step > 26) svg.append(shape("text", { x: middle, y: height - 3, "text-anchor": "middle" }, label));
  });
}

function rows(list, entries, explain, empty) {
  const sorted = entries.sort((a, b) => b[1] - a[1]).slice(0, 8);
  const highest = Math.max(1, ...sorted.map(([, count]) => count));
  list.replaceChildren(...sorted.map(([name, count]) => {
    const row = element("li", "");
    const fill = element("span", "fill");
    fill.style.width = `${(count / highest) * 100}%`;
    row.append(fill);
    if (explain) row.append(element("span", "code", name));
    row.append(element("span", "name", explain ? explain(name) : name), element("span", "count", number.format(count)));
    return row;
  }));
  if (!sorted.length) list.append(element("li", "empty", empty));
}

function drawProcesses(all) {
  const sorted = all.sort((a, b) => a.now.pid - b.now.pid);
  $("processes").replaceChildren(...sorted.map(({ now, rates, heard }) => {
    const row = element("tr", isSilent(heard) ? "silent" : "");
    const cells = [
      now.pid, duration(now.uptime), number.format(now.open), number.format(now.members), number.format(now.rooms),
      number.format(rates.out), bytes(now.outbox + now.backlog), number.format(now.evicted), number.format(total(now.refused)),
    ];
    row.append(...cells.map((cell) => element("td", "", String(cell))));
    return row;
  }));
}

setInterval(tick, 1000);
if (token) connect();
else ask("");

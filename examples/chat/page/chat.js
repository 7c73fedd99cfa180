// The page's side of the chat. Law: whatever other people wrote reaches the document through
// `textContent` only, never as HTML. The protocol is described in ../README.md.

const $ = (id) => document.getElementById(id);

const KEEP = 1000; // messages in the document; older ones are dropped
const TRY_AGAIN = 2000; // ms before a message that was not delivered is sent again
const FIRST_WAIT = 500; // ms before the first attempt to reconnect; doubles up to ...
const LONGEST_WAIT = 15_000;
const STEADY = 10_000; // a connection this old was a good one: the next wait is short again
const NO_RETURN = new Set([1000, 4000, 4001]); // left, refused, replaced: trying again is no use

const CODES = {
  1000: "you left",
  1001: "the server is going away",
  1006: "connection lost",
  1009: "message too big",
  1011: "the server failed",
  1012: "the server restarts",
  1013: "this connection was too slow",
};

// -- who we are ------------------------------------------------------------------------------

// A secret of this tab. When a lost connection still lingers on the server, it proves that the
// nickname is ours, and the new connection takes the old one's place.
const randomName = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function tabSecret() {
  const made = randomName();
  try {
    const kept = sessionStorage.getItem("chat-client") ?? made;
    sessionStorage.setItem("chat-client", kept);
    return kept;
  } catch {
    return made; // storage is switched off: the secret lives as long as the page
  }
}

const remember = (nickname) => { try { localStorage.setItem("chat-nickname", nickname); } catch { /* not kept, no harm */ } };
const remembered = () => { try { return localStorage.getItem("chat-nickname") ?? ""; } catch { return ""; } };

const client = tabSecret();
let me = null; // { nickname, room, joined, after } between joining and leaving; after: the last id seen

// -- connection: connecting -> open -> (waiting -> connecting)* -> closed ----------------------

let socket = null;
let welcomed = 0; // when this connection was welcomed, 0 if it was not
let failures = 0;
let lastClose = ""; // how the last good connection ended; a failed attempt to reconnect is no news
let retryAt = 0;
let ticker = null;

function connect() {
  clearInterval(ticker);
  $("retry").hidden = true;
  showState("connecting", lastClose ? `connecting again (${lastClose})` : "connecting");
  const url = new URL(`/chat/${encodeURIComponent(me.room)}`, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const ours = new WebSocket(url);
  socket = ours;
  welcomed = 0;
  ours.onopen = () => ours.send(JSON.stringify({ type: "join", nickname: me.nickname, client, after: me.after }));
  ours.onmessage = (event) => { if (ours === socket) receive(JSON.parse(event.data)); };
  ours.onclose = (event) => { if (ours === socket) closed(event); };
}

function closed(event) {
  socket = null;
  $("send").disabled = true;
  showTrouble("");
  const words = `closed: ${event.code} ${event.reason || CODES[event.code] || ""}`.trim();
  if (welcomed || NO_RETURN.has(event.code)) lastClose = words;
  if (NO_RETURN.has(event.code)) return leftRoom(event.code === 1000 ? "" : event.reason);
  if (welcomed) addNote(`Connection ${words}`, Date.now(), "bad");
  failures = welcomed && Date.now() - welcomed > STEADY ? 1 : failures + 1;
  // Jitter: when a server restarts, its clients must not all come back in the same instant.
  const ceiling = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures);
  retryAt = Date.now() + ceiling * (0.5 + Math.random() / 2);
  $("retry").hidden = false;
  lastClose ||= words;
  tick();
  ticker = setInterval(tick, 250);
}

function tick() {
  const left = retryAt - Date.now();
  if (left <= 0) return connect();
  showState("waiting", `${lastClose}; reconnecting`, ` in ${Math.ceil(left / 1000)} s`);
}

function retryNow() {
  if (me && !socket) connect();
}

function leftRoom(why) {
  clearInterval(ticker);
  socket = null;
  me = null;
  people = [];
  waiting.clear();
  $("retry").hidden = true;
  $("refusal").textContent = why;
  $("refusal").hidden = !why;
  document.body.dataset.view = "door";
  showState(lastClose ? "closed" : "idle", lastClose || "not connected");
  showTitle();
  $("nickname").focus();
  if (why) $("nickname").select();
}

// -- what the server says ----------------------------------------------------------------------

const shown = new Set(); // ids of the messages in the document: history after a reconnect overlaps
let people = [];

function receive(event) {
  if (event.type === "welcome") welcome(event);
  else if (event.type === "message") addMessage(event, true);
  else if (event.type === "joined") { people = [...people.filter((name) => name !== event.nickname), event.nickname]; addNote(`${event.nickname} joined`, event.at); }
  else if (event.type === "left") { people = people.filter((name) => name !== event.nickname); addNote(`${event.nickname} left`, event.at); }
  else if (event.type === "error" || event.type === "slow") addNote(event.text, Date.now(), "bad");
  else if (event.type === "unsent") unsent(event);
  else if (event.type === "trouble") showTrouble(event.text);
  else if (event.type === "healed") healed();
  showPeople();
}

function welcome(event) {
  const again = me.joined;
  me.joined = true;
  welcomed = Date.now();
  lastClose = "";
  me.nickname = event.nickname;
  people = event.members;
  showState("open", "open");
  document.body.dataset.view = "room";
  document.body.dataset.process = event.process; // which of several servers it is; for the curious
  $("send").disabled = false;
  if (again && event.history.length && !event.history.some((message) => shown.has(message.id)))
    addNote("More was said meanwhile. The last messages follow.", Date.now());
  for (const message of event.history) addMessage(message, again);
  addNote(again ? "Connected again" : `You joined ${me.room} as ${me.nickname}`, Date.now());
  showTitle();
  sendAll();
  if (!again) $("message").focus();
}

// -- what we said, until it comes back ---------------------------------------------------------

// A message is ours to keep until it comes back from the server, among those of everybody else.
// Until then it is sent again after each reconnect; its token makes sure that it is said once.
const waiting = new Map(); // token -> { token, text, row }
let sendAgain = null;

function sayIt(text) {
  const row = element("li", "said own waiting");
  const bubble = element("div", "bubble");
  bubble.append(element("span", "text", text), element("span", "state", "sending"));
  row.append(bubble);
  const message = { token: randomName(), text, row };
  waiting.set(message.token, message);
  atEnd = true;
  append(row);
  send(message);
}

function send({ token, text }) {
  if (welcomed && socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "say", text, token }));
}

function sendAll() {
  clearTimeout(sendAgain);
  sendAgain = null;
  waiting.forEach(send);
}

function unsent(event) {
  const message = waiting.get(event.token);
  if (!message) return addNote(event.text, Date.now(), "bad");
  message.row.classList.add("failed");
  message.row.querySelector(".state").textContent = "not delivered yet";
  // All of them, in order: the server lets none overtake another.
  sendAgain ??= setTimeout(sendAll, TRY_AGAIN);
}

function arrived(token) {
  waiting.get(token)?.row.remove();
  return waiting.delete(token);
}

function showTrouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text && `${text} What you write waits here and is sent as soon as that is over.`;
}

function healed() {
  showTrouble("");
  addNote("Messages are delivered again", Date.now());
  sendAll();
}

// -- conversation --------------------------------------------------------------------------------

const log = $("messages");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
let atEnd = true; // the reader is at the end of the log, and stays there
let below = 0; // messages that arrived below what the reader looks at
let unread = 0; // messages that arrived while the tab was hidden
let previous = {}; // what the last message was, to group messages of one person
let day = "";

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function timeOf(at) {
  const made = element("time", "", clock.format(at));
  made.dateTime = new Date(at).toISOString();
  made.title = new Date(at).toLocaleString();
  return made;
}

function hueOf(nickname) {
  let hash = 7;
  for (const letter of nickname) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  return hash;
}

function append(row) {
  log.append(row);
  while (log.children.length > KEEP) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function startDay(at) {
  const today = calendar.format(at);
  if (today === day) return;
  day = today;
  previous = {};
  append(element("li", "day", today));
}

function addNote(text, at, kind = "") {
  startDay(at);
  previous = {};
  const row = element("li", `note ${kind}`, `${text} `);
  row.append(timeOf(at));
  append(row);
}

function addMessage(message, live) {
  if (shown.has(message.id)) return;
  shown.add(message.id);
  me.after = message.id;
  arrived(message.token);
  startDay(message.at);
  const own = message.from === me.nickname;
  if (live && !own) countUnseen();
  const row = element("li", "said");
  row.classList.toggle("own", own);
  row.classList.toggle("more", message.from === previous.from && message.at - previous.at < 5 * 60_000);
  previous = message;
  row.style.setProperty("--hue", hueOf(message.from));
  const who = element("div", "who");
  who.append(element("b", own ? "unseen" : "", own ? "You" : message.from));
  const bubble = element("div", "bubble");
  bubble.append(element("span", "text", message.text), timeOf(message.at));
  row.append(who, bubble);
  if (own && live) atEnd = true; // what you wrote yourself you want to see
  append(row);
}

function countUnseen() {
  if (document.hidden) {
    if (unread === 0) {
      log.querySelector(".fresh")?.remove();
      append(element("li", "fresh", "new"));
      previous = {};
    }
    unread += 1;
    showTitle();
  }
  if (!atEnd) {
    below += 1;
    showNewer();
  }
}

// -- what is around it ---------------------------------------------------------------------------

function showState(state, words, countdown = "") {
  document.body.dataset.state = state;
  $("status").dataset.state = state;
  // The countdown is for the eyes: read aloud each second it would be noise.
  if ($("state").textContent !== words) $("state").textContent = words;
  $("countdown").textContent = countdown;
}

function showTitle() {
  $("title").textContent = me ? me.room : "Chat";
  document.title = `${unread ? `(${unread}) ` : ""}${me ? `${me.room} · ` : ""}Chat`;
}

function showNewer() {
  $("newer").hidden = below === 0;
  $("newer").textContent = `${below} new ${below === 1 ? "message" : "messages"} ↓`;
}

function showPeople() {
  $("count").textContent = people.length;
  $("members").replaceChildren(...people.map((nickname) => {
    const row = element("li", "");
    row.style.setProperty("--hue", hueOf(nickname));
    row.dataset.initial = [...nickname][0].toUpperCase();
    const name = element("span", "name", nickname);
    name.title = nickname;
    row.append(name);
    if (nickname === me?.nickname) row.append(element("span", "you", "(you)"));
    return row;
  }));
}

// -- what the person does ------------------------------------------------------------------------

$("join").onsubmit = (event) => {
  event.preventDefault();
  const wanted = { nickname: $("nickname").value.trim(), room: $("room").value.trim(), joined: false };
  socket?.close(); // still connecting, for another name or room
  clearLog();
  me = wanted;
  lastClose = "";
  failures = 0;
  $("refusal").hidden = true;
  remember(wanted.nickname);
  if (location.pathname !== `/room/${wanted.room}`) history.pushState(null, "", `/room/${wanted.room}`);
  connect();
};

function clearLog() {
  log.replaceChildren();
  shown.clear();
  waiting.clear();
  previous = {};
  day = "";
  below = unread = 0;
  atEnd = true;
  showNewer();
}

$("say").onsubmit = (event) => {
  event.preventDefault();
  const text = $("message").value.trim();
  $("message").focus();
  if (!text || !welcomed || socket?.readyState !== WebSocket.OPEN) return; // the text stays in the field
  sayIt(text);
  $("message").value = "";
};

function leave() {
  lastClose = "closed: 1000 you left";
  socket?.close(1000);
  leftRoom("");
}

$("leave").onclick = leave;
$("retry").onclick = retryNow;
$("toggle").onclick = () => { $("toggle").ariaExpanded = String($("people").classList.toggle("open")); };
$("newer").onclick = () => { log.scrollTop = log.scrollHeight; };

log.onscroll = () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (atEnd) { below = 0; showNewer(); }
};
// A phone's keyboard makes the log smaller: who was at the end stays there.
new ResizeObserver(() => { if (atEnd) log.scrollTop = log.scrollHeight; }).observe(log);

document.onvisibilitychange = () => {
  if (document.hidden) return;
  unread = 0;
  showTitle();
  retryNow(); // timers sleep in hidden tabs
};
addEventListener("online", retryNow);
addEventListener("popstate", () => {
  if (me) leave();
  roomFromPath();
});

function roomFromPath() {
  const [, first, room] = location.pathname.split("/");
  if (first === "room" && room) $("room").value = decodeURIComponent(room);
}

roomFromPath();
$("nickname").value = remembered();
$("nickname").focus();

// One run of node's `ws` client against an echo server; every step is asserted, then "ok" is printed.
//
//     node client.mjs URL client|server [CA.pem]
//
// The second argument says who closes. Exits with 1 at the first thing that is not as it must be.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { once } from "node:events";
import WebSocket from "ws";

const [url, closer, ca] = process.argv.slice(2);
const deadline = setTimeout(() => { console.error("timed out"); process.exit(1); }, 20_000);

const ws = new WebSocket(url, { perMessageDeflate: true, ca: ca && readFileSync(ca) });
await once(ws, "open");

async function echo(message) {
  const answer = once(ws, "message");
  ws.send(message);
  const [data, isBinary] = await answer;
  return isBinary ? data : data.toString("utf8");
}

assert.equal(await echo("hello"), "hello");
assert.equal(await echo("h\u00e9llo \u{1f41f}"), "h\u00e9llo \u{1f41f}");
assert.equal(await echo(""), "");
assert.deepEqual(await echo(Buffer.from([0, 1, 254, 255])), Buffer.from([0, 1, 254, 255]));
const mebibyte = Buffer.alloc(1024 * 1024, "0123456789abcdef");
assert.ok(mebibyte.equals(await echo(mebibyte)));

// A message in three fragments with a ping between them.
const answer = once(ws, "message");
const pong = once(ws, "pong");
ws.send("frag", { fin: false });
ws.ping("between");
ws.send("men", { fin: false });
ws.send("ted", { fin: true });
assert.equal((await answer)[0].toString(), "fragmented");
assert.equal((await pong)[0].toString(), "between");

const closed = once(ws, "close");
if (closer === "client") {
  ws.close(4321, "from the client");
  const [code, reason] = await closed;
  assert.deepEqual([code, reason.toString()], [4321, "from the client"]);
  console.log("ok");
} else {
  console.log("ready"); // whoever reads this stops the server
  const [code] = await closed;
  assert.equal(code, 1001);
  console.log("ok");
}
clearTimeout(deadline);

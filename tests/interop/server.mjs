// node's `ws` as an echo server, for our client.
//
//     node server.mjs [CERT.pem KEY.pem]
//
// Prints its port. "close 4000 why" closes with that code and reason. Ends when its input ends.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { WebSocketServer } from "ws";

const [cert, key] = process.argv.slice(2);
const listener = cert
  ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) })
  : http.createServer();
const server = new WebSocketServer({
  server: listener,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has("echo") ? "echo" : false),
});
server.on("connection", (ws) => {
  ws.on("message", (data, isBinary) => {
    const [word, code, reason] = isBinary ? [] : data.toString("utf8").split(" ");
    if (word === "close") ws.close(Number(code), reason);
    else ws.send(data, { binary: isBinary });
  });
});
listener.listen(0, "127.0.0.1", () => console.log(listener.address().port));
process.stdin.resume().on("end", () => process.exit(0));

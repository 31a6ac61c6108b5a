// The plainest WebSocket server on the `ws` package: GET /ws?channel=x, POST /channels/x.
import http from "node:http";
import { createRequire } from "node:module";

// Installed outside of this directory: the script says where.
const { WebSocketServer } = createRequire(process.argv[3] + "/")("ws");

const channels = new Map();
const subscribersOf = (name) => {
  if (!channels.has(name)) channels.set(name, new Set());
  return channels.get(name);
};

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const data = Buffer.concat(pieces).toString();
    for (const one of subscribersOf(request.url.split("/").pop())) one.send(data);
    response.end("{}");
  });
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket, request) => {
  const channel = new URL(request.url, "http://localhost").searchParams.get("channel");
  const subscribers = subscribersOf(channel);
  subscribers.add(socket);
  socket.on("close", () => subscribers.delete(socket));
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });

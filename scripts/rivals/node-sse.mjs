// The plainest SSE server on node's own http module: GET /sse?channel=x, POST /channels/x.
import http from "node:http";

const channels = new Map();
const subscribersOf = (name) => {
  if (!channels.has(name)) channels.set(name, new Set());
  return channels.get(name);
};

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (request.method === "GET") {
    const subscribers = subscribersOf(url.searchParams.get("channel"));
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
    response.write(":\n\n");
    subscribers.add(response);
    request.on("close", () => subscribers.delete(response));
    return;
  }
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const event = `data: ${Buffer.concat(pieces)}\n\n`;
    for (const one of subscribersOf(url.pathname.split("/").pop())) one.write(event);
    response.end("{}");
  });
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });

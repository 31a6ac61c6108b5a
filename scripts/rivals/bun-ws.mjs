// Bun's own WebSocket server with its native publish: GET /ws?channel=x, POST /channels/x. What a
// WebSocket sends is published on its channel, and so comes back.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  async fetch(request, server) {
    const url = new URL(request.url);
    if (request.method === "POST") {
      server.publish(url.pathname.split("/").pop(), await request.text());
      return new Response("{}");
    }
    const data = { channel: url.searchParams.get("channel") };
    if (server.upgrade(request, { data })) return;
    return new Response("not found", { status: 404 });
  },
  websocket: {
    idleTimeout: 960,
    perMessageDeflate: false,
    open(socket) {
      socket.subscribe(socket.data.channel);
    },
    message(socket, text) {
      server.publish(socket.data.channel, text);
    },
  },
});

// What a page of an application does, and what a test wants to know of it afterwards.

/** Everything that happened to the stream, in order. */
const seen = [];
let source;
/** How often the stream ended or could not be opened. */
let errors = 0;

/** Follows a stream, as the README's page does; settled once it is open. */
function follow(url) {
  source = new EventSource(url);
  source.onmessage = (event) => seen.push(event.data);
  source.onerror = () => { errors += 1; };
  source.addEventListener('pushline.gap', (event) => {
    seen.push(`gap ${JSON.parse(event.data).reason}`);
  });
  return new Promise((open) => source.addEventListener('open', () => open(true), { once: true }));
}

/** Publishes, which leaves a connection that is kept alive. */
async function publish(url, data) {
  const answer = await fetch(url, { method: 'POST', body: data });
  await answer.text();
  return answer.status;
}

/** Sends a message over a WebSocket of its own; tells what comes back. */
function echo(url) {
  const socket = new WebSocket(url.replace(/^http/, 'ws'));
  return new Promise((tell) => {
    socket.onopen = () => socket.send('there and back');
    socket.onmessage = (event) => { socket.close(); tell(event.data); };
    socket.onclose = (event) => tell(`closed with ${event.code}`);
  });
}

/** What the last request but streams spoke: `h2`, `http/1.1`. */
function spoken() {
  return performance.getEntriesByType('resource').at(-1).nextHopProtocol;
}

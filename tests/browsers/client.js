// What a page does that uses our client, and what a test wants to know of it afterwards.

/** Events and gaps in the order they were handed over. */
const seen = [];
/** States, and changes of transport with their reasons. */
const states = [];
const errors = [];
let client;

/** Follows channels; settled once the page is in step. */
async function follow(url, options) {
  const { Pushline } = await import(`${url}/pushline.js`);
  client = new Pushline(url, options);
  client.on('message', (data) => seen.push(data));
  client.on('gap', ({ reason }) => seen.push(`gap ${reason}`));
  client.on('error', ({ code, status }) => errors.push(`${status} ${code}`));
  client.on('state', (state, transport) => states.push(`${state} ${transport}`));
  client.on('fallback', (reason, transport) => states.push(`${reason}: ${transport}`));
  await until(() => client.state === 'open');
  return client.transport;
}

/** Polls, since a test's condition is none of the client's events. */
async function until(isSo) {
  while (!isSo()) await new Promise((again) => setTimeout(again, 20));
}

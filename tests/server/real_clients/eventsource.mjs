// Reads a stream with the npm package `eventsource`, which reconnects by itself, and prints one
// JSON line per event. Arguments: URL, number of events.
import { EventSource } from 'eventsource';

const [url, count] = [process.argv[2], Number(process.argv[3])];
const source = new EventSource(url);
let seen = 0;
source.addEventListener('pushline.gap', (event) => {
  console.log(JSON.stringify({ id: event.lastEventId, data: `gap ${event.data}` }));
});
source.onmessage = (event) => {
  console.log(JSON.stringify({ id: event.lastEventId, data: event.data }));
  seen += 1;
  if (seen === count) source.close();
};

// A chat of the AI SDK (npm `ai`) whose page is reloaded in the middle of an answer. The producer is
// createUIMessageStreamResponse, the reader DefaultChatTransport, as useChat({ resume: true }) has
// it, unchanged. Arguments: Pushline's URL, number of tokens.
import {
  AbstractChat, DefaultChatTransport, createUIMessageStream, createUIMessageStreamResponse,
} from 'ai';

const [url, tokens] = [process.argv[2], Number(process.argv[3])];
const id = 'tab-1';

class State {
  status = 'ready';
  error = undefined;
  messages = [{ id: 'q', role: 'user', parts: [{ type: 'text', text: 'Go on' }] }];
  pushMessage = (message) => void this.messages.push(message);
  popMessage = () => void this.messages.pop();
  replaceMessage = (at, message) => void (this.messages[at] = message);
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends AbstractChat {
  constructor() {
    super({ id, state: new State(), transport: new DefaultChatTransport({ api: `${url}/api/chat` }) });
  }
}

const nothing = new Chat();
await nothing.resumeStream();
console.log(JSON.stringify({ messages: nothing.messages.length }));

let halfway;
const half = new Promise((resolve) => (halfway = resolve));
let goOn;
const reloaded = new Promise((resolve) => (goOn = resolve));
const stream = createUIMessageStream({
  async execute({ writer }) {
    writer.write({ type: 'start', messageId: 'a' });
    writer.write({ type: 'text-start', id: 't' });
    for (let n = 0; n < tokens; n += 1) {
      if (n === tokens / 2) { halfway(); await reloaded; }
      writer.write({ type: 'text-delta', id: 't', delta: `${n} ` });
    }
    writer.write({ type: 'text-end', id: 't' });
    writer.write({ type: 'finish' });
  },
});
let produced;
const response = createUIMessageStreamResponse({
  stream,
  consumeSseStream: ({ stream }) => {
    produced = fetch(`${url}/channels/chat:${id}/stream`, {
      method: 'POST', duplex: 'half', headers: { 'Content-Type': 'text/event-stream' },
      body: stream.pipeThrough(new TextEncoderStream()),
    });
  },
});
// The page that asked reads a little, and is gone.
const reader = response.body.getReader();
await reader.read();
await half;
// Its tab is read to nowhere: what the SDK writes must go on to us.
(async () => { while (!(await reader.read()).done); })();

const page = new Chat();
const resumed = page.resumeStream();
while (page.lastMessage?.role !== 'assistant') await new Promise((resolve) => setTimeout(resolve, 5));
goOn();
await resumed;
const answer = await (await produced).json();
console.log(JSON.stringify({
  status: page.status, error: page.error?.message, state: answer.state, events: answer.events,
  text: page.lastMessage.parts.map((part) => part.text ?? '').join(''),
}));

// The part of pushline.js that has to do with token streams; loaded by the first page that reads or
// produces one.

const RETRY_MS = 1_000;
const RETRY_MAX_MS = 30_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The tokens of the stream that these options name, until it ends. */
export async function* read(Pushline, Failure, url, options) {
  const push = new Pushline(url, { ...options, after: "stream", share: false });
  try {
    for await (const { event, data } of push) {
      if (event === "pushline.gap") throw new Failure(data.reason);
      else if (event !== "pushline.stream") yield data;
      else if (data.state === "error") throw new Failure(data.reason);
      else if (data.state !== "open") return;
    }
  } finally {
    push.close();
  }
}

/**
 * Produces a channel's stream over a WebSocket of its own. When that breaks, the stream is opened again
 * and goes on with what the log does not have; so a token is there once.
 */
export class Producer {
  #door;
  #Failure;
  #channel;
  #socket;
  #waiting = []; // what the log is not known to have: tokens, each with its promise
  #first = 0; // the number of the first of them
  #sent = 0; // the number of the next that this connection sends
  #isOpen = false;
  #end;
  #settle;

  constructor(door, Failure, channel, { stream = Math.random().toString(36).slice(2) } = {}) {
    this.#door = door;
    this.#Failure = Failure;
    this.#channel = channel;
    this.stream = stream;
    /** Resolves with how the stream ended, whoever ended it; rejects when it can't go on. */
    this.ended = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.ended.catch(() => {});
    this.#run();
  }

  /** Appends a token: text or a JSON value. Resolves with `{ id, offset }` once it is in the log. */
  append(data) {
    return new Promise((resolve, reject) => {
      if (!this.#settle || this.#end) return reject(new this.#Failure("stream_ended"));
      this.#waiting.push({ data, resolve, reject });
      this.#send();
    });
  }

  /** Ends the stream behind all that was appended. Resolves with how far it came. */
  end() {
    return this.#finish("done");
  }

  /** The same, but as `error`. */
  fail() {
    return this.#finish("error");
  }

  /** For `readable.pipeTo(producer.writable)`. */
  get writable() {
    return new WritableStream({
      write: (token) => this.append(token),
      close: () => this.end(),
      abort: () => this.fail(),
    });
  }

  #finish(state) {
    this.#end ??= state;
    this.#send();
    return this.ended;
  }

  #op(op) {
    this.#socket.send(JSON.stringify({ channel: this.#channel, ...op }));
  }

  /** Sends what this connection has not, and the end behind it. */
  #send() {
    if (!this.#isOpen) return;
    const end = this.#first + this.#waiting.length;
    for (; this.#sent < end; this.#sent++) {
      const { data } = this.#waiting[this.#sent - this.#first];
      this.#op({ op: "append", data, ref: this.#sent });
    }
    if (!this.#end) return;
    this.#isOpen = false;
    this.#op({ op: "end", state: this.#end, ref: "end" });
  }

  /** The log has the tokens before this one. */
  #has(count, about = {}) {
    for (const { resolve } of this.#waiting.splice(0, count - this.#first)) resolve(about);
    this.#first = Math.max(this.#first, count);
  }

  async #run() {
    for (let attempts = 0; this.#settle; attempts++) {
      try {
        await this.#connect(() => (attempts = 0));
      } catch (error) {
        if (error.isFinal) this.#close("reject", error);
      }
      this.#isOpen = false;
      if (this.#settle) await pause(Math.random() * Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** attempts));
    }
  }

  /** Lasts as long as the connection, whose end is an error. */
  async #connect(isFine) {
    this.#socket = await this.#door.socket();
    await new Promise((_, reject) => {
      this.#socket.onopen = () => this.#op({ op: "open", stream: this.stream, ref: "open" });
      this.#socket.onmessage = ({ data }) => {
        const { error, ...answer } = JSON.parse(data);
        if (error) return reject(this.#failure(error));
        isFine();
        this.#take(answer);
      };
      this.#socket.onclose = ({ code }) => {
        if (code === 4401) this.#door.held = undefined;
        reject(new this.#Failure("cut"));
      };
    }).finally(() => {
      this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    });
  }

  /** What concerns the stream itself will not pass, nor that it may not be produced. */
  #failure({ code, message }) {
    const isFinal = /stream|forbidden|channel|large/.test(code);
    return Object.assign(new this.#Failure(code, message), { isFinal });
  }

  #take({ ref, state, offset, ...about }) {
    if (state) return this.#close("resolve", { ...about, state });
    if (ref !== "open") return this.#has(offset + 1, { ...about, offset });
    this.#has(offset);
    this.#sent = this.#first;
    this.#isOpen = true;
    this.#send();
  }

  #close(how, value) {
    const error = how === "reject" ? value : new this.#Failure("stream_ended");
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#settle?.[how](value);
    this.#settle = undefined;
    this.#socket.close();
  }
}

// Pushline in a browser: one cursor over Server-Sent Events and WebSocket, one connection for all
// tabs of an origin. A page sees each event once and in order, or is told of the gap.
//
// A `Pushline` is what a page holds: its channels, how far it has read each, what it has yet to
// publish. A `Link` is the connection; it lives in the one tab that leads, and `Tabs` carries
// messages between it and the pages. `sse` and `ws` are the two ways to make a connection.
// A new leader has only to ask the pages how far they have read.

const BEAT_MS = 25_000; // the server's default, until a stream says otherwise
const FIRST_MS = 5_000; // a stream that has brought nothing by then is buffered on its way
const OPEN_MS = 10_000; // what a request may take
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 30_000;
const RENEW_MS = 30_000; // a token is renewed this long before it runs out
const FOR_EVER = 2 ** 31 - 1;

/** Types of the client's own events; a published event of such a type is only seen as `"*"`. */
const OWN = ["state", "error", "gap", "fallback", "*"];

/** Why a connection or a publish failed; `status` is HTTP's, 0 if there was no answer. */
export class PushlineError extends Error {
  name = "PushlineError";

  constructor(code, message = code, status = 0, retryMs = 0) {
    super(message);
    Object.assign(this, { code, status, retryMs });
  }
}

const randomId = () => Math.random().toString(36).slice(2);

/** Settled after `ms`, or once `of.hurry` is called. */
const pause = (of, ms) =>
  new Promise((resolve) => {
    of.hurry = resolve;
    setTimeout(resolve, ms);
  });

const split = (id) => /^(.*?)-?(\d*)$/.exec(id).slice(1);

/** Whether `id` comes after the cursor `seen`. Epochs have no order: another one is news. */
const isNews = (id, seen) => {
  const [[epoch, seq], [seenEpoch, seenSeq]] = [split(id), split(seen)];
  return epoch !== seenEpoch || +seq > +seenSeq;
};

/** The cursor from which neither misses anything. */
const earlier = (a, b) => (a === "earliest" || !isNews(a, b) ? a : b);

const payload = ({ data, data_base64: base64 }) =>
  base64 === undefined ? data : Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));

/** The claims of a JWT. */
const claims = (token) => {
  try {
    return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return {};
  }
};

/** Which transport works on this network. If nothing can be stored, it is tried again each time. */
const recall = (key, transport) => {
  try {
    if (transport) localStorage[key] = transport;
    return localStorage[key];
  } catch {
    return undefined;
  }
};

/** The address of the server, and the token for it. */
class Door {
  constructor(base, source, credentials) {
    Object.assign(this, { base, source, credentials });
  }

  /** The present token, unless it is about to expire. */
  async token() {
    if (!this.held || this.msLeft() < 0) {
      this.held = typeof this.source === "function" ? await this.source() : this.source;
    }
    return this.held;
  }

  /** Time until it must be renewed; NaN if it does not expire. */
  msLeft() {
    return claims(this.held).exp * 1000 - RENEW_MS - Date.now();
  }

  url(path, query = []) {
    return Object.assign(new URL(path, this.base), { search: new URLSearchParams(query) });
  }

  /** Opens a WebSocket; `query` is as in `url`. */
  async socket(query) {
    const token = await this.token();
    return new WebSocket(this.url("ws", query).href.replace("http", "ws"), ["pushline.v1", ...(token ? [`bearer.${token}`] : [])]);
  }

  async fetch(path, { query, headers = {}, ...rest } = {}) {
    const token = await this.token();
    if (token) headers.Authorization = `Bearer ${token}`;
    const { credentials } = this;
    const url = this.url(path, query);
    const response = await fetch(url, { ...rest, headers, credentials, cache: "no-store" });
    if (response.ok) return response;
    const { error = {} } = await response.json().catch(() => ({}));
    const { code = "failed", message } = error;
    const retryMs = 1000 * response.headers.get("Retry-After");
    throw new PushlineError(code, message, response.status, retryMs);
  }
}

// --- the two transports: each lasts until its connection ends, which is always an error ---

async function sse(link, signal) {
  const query = [...link.query(), ["envelope", "json"], ["heartbeat", "event"], ["open", "event"]];
  link.expect(FIRST_MS, "buffered");
  const { body } = await link.door.fetch("sse", { query, signal });
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let block = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new PushlineError("ended");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const [, name, text] = /^(\w*):\x20?(.*)/.exec(line) ?? [];
      if (name) block[name] = text;
      if (line) continue;
      link.block(block);
      block = {};
    }
  }
}

async function ws(link, signal) {
  const socket = await link.door.socket(link.query());
  link.expect(FIRST_MS, "refused");
  const asked = new Map();
  link.ask = (op) =>
    new Promise((resolve, reject) => {
      const ref = randomId();
      asked.set(ref, { resolve, reject });
      socket.send(JSON.stringify({ ...op, ref }));
    });
  const answer = ({ ref, error, ...rest }) => {
    const { resolve, reject } = asked.get(ref) ?? {};
    asked.delete(ref);
    if (error) reject?.(error);
    else resolve?.(rest);
  };
  try {
    await new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      socket.onopen = () => {
        link.opened();
        link.nudge();
      };
      socket.onmessage = ({ data }) => {
        link.heard();
        const message = JSON.parse(data);
        if ("ref" in message) answer(message);
        else link.event(message);
      };
      socket.onclose = ({ code, reason }) => {
        const why = link.state === "open" ? `closed_${code}` : "refused";
        reject(new PushlineError(why, reason, code === 4401 ? 401 : 0));
      };
    });
  } finally {
    link.ask = undefined;
    for (const { reject } of asked.values()) reject(new PushlineError("cut"));
    // On a dead path closing may take a minute: nothing from this socket matters any more.
    socket.onclose = socket.onmessage = null;
    socket.close();
  }
}

/** The connection for all channels that the tabs want. Lives in the tab that leads. */
class Link {
  state = "connecting";
  beat = BEAT_MS;
  /** Grows with each connection of any link, so that messages of a former leader are recognised. */
  generation = 0;
  #cursors = new Map(); // channel -> what its slowest tab has read; undefined: from now on
  #attempts = 0;

  constructor(door, transport, tell) {
    const forced = transport !== "auto";
    this.key = `pushline ${door.base} ${navigator.connection?.type}`;
    Object.assign(this, { door, forced, transport: forced ? transport : recall(this.key) ?? "sse" });
    this.tell = (message) => tell({ ...message, generation: this.generation });
    this.#run();
  }

  /**
   * A tab wants these channels, each with its cursor or undefined. Returns the first generation
   * that misses nothing after those cursors.
   */
  want(wanted) {
    let stale = false;
    for (const [channel, cursor] of wanted) {
      const held = this.#cursors.get(channel);
      const next = held && cursor ? earlier(held, cursor) : cursor ?? held;
      stale ||= !this.#cursors.has(channel) || next !== held;
      this.#cursors.set(channel, next);
    }
    if (stale) this.#restart();
    return stale ? this.generation + 1 : this.generation;
  }

  /** Only these channels are wanted by tabs: the next connection leaves out the others. */
  keep(wanted) {
    for (const channel of this.#cursors.keys()) {
      if (!wanted.includes(channel)) this.#cursors.delete(channel);
    }
  }

  /** Reports where the stream is, which is where a channel without a cursor begins. */
  report() {
    this.tell({ op: "at", cursors: [...this.#cursors] });
    this.#say(this.state);
  }

  query() {
    const known = [...this.#cursors.values()].filter(Boolean);
    // A cursor of another epoch takes precedence: what it has missed is reported as a gap.
    const foreign = known.find((id) => this.epoch && split(id)[0] !== this.epoch);
    const query = [...this.#cursors.keys()].map((channel) => ["channel", channel]);
    if (known.length) query.push(["last_event_id", foreign ?? known.reduce(earlier)]);
    if (this.fallback) query.push(["fallback", this.fallback]);
    return query;
  }

  // --- what the transports say ---

  opened() {
    this.fallback = undefined;
    this.#attempts = 0;
    this.heard();
    this.#say("open");
    this.#renewInTime();
  }

  /** A byte came: the path is alive, and the next is due within one and a half beats. */
  heard() {
    this.heardAt = Date.now();
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.#check(), this.beat);
  }

  /** Gives the connection up unless something is heard in time. */
  expect(ms, code) {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.#end(code), ms);
  }

  /** A timer may be late in a hidden page: a connection silent for a beat is first sent a ping. */
  #check() {
    this.ask?.({ op: "ping" }).then((answer) => this.#proven(answer), () => {});
    this.expect(this.beat / 2, "silent");
  }

  /** The path has carried more than the first bytes. */
  #proven({ every_ms: beat = this.beat, connection }) {
    this.isProven = true;
    if (connection) this.#named(connection);
    this.beat = beat;
    recall(this.key, this.transport);
    this.tell({ op: "alive" });
  }

  /** A block of an event stream. */
  block({ id, event, data = "{}", retry }) {
    const parsed = JSON.parse(data);
    this.heard();
    if (retry) {
      this.retryMs = +retry;
      this.opened();
    }
    if (parsed.connection) this.#named(parsed.connection);
    if (parsed.every_ms) this.beat = parsed.every_ms;
    else if (event === "pushline.beat") this.#proven(parsed);
    else if (parsed.id) this.event(parsed);
    else if (id) this.#begin(id);
  }

  /** What the server calls the connection. */
  #named(connection) {
    this.connection = connection;
    this.#say(this.state);
  }

  event({ id, channel, event = "message", publisher, ...rest }) {
    if (!this.#cursors.has(channel)) return;
    this.tell({ op: "event", id, channel, event, publisher, data: payload(rest) });
    // The server sends in the order of the log: all its channels are read up to here.
    [this.epoch] = split(id);
    for (const [other, cursor] of this.#cursors) {
      if (isNews(id, cursor)) this.#cursors.set(other, id);
    }
  }

  /** A stream without a cursor begins here. */
  #begin(id) {
    for (const [channel, cursor] of this.#cursors) this.#cursors.set(channel, cursor ?? id);
    this.report();
  }

  // --- the life of the connection ---

  async #run() {
    while (!this.closed) {
      if (this.#cursors.size) await this.#recover(await this.#connect());
      else await pause(this, FOR_EVER);
    }
  }

  /** Connects, and tells why that failed or ended. */
  async #connect() {
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.generation = Math.max(this.generation + 1, Date.now());
    this.isProven = this.connection = undefined;
    this.#say("connecting");
    this.expect(OPEN_MS, "timeout");
    try {
      await this.#locate(signal);
      return await (this.transport === "ws" ? ws : sse)(this, signal);
    } catch (error) {
      return this.#judge(signal.aborted ? signal.reason : error);
    } finally {
      clearTimeout(this.watch);
      clearTimeout(this.renewal);
    }
  }

  /** A page is not told why a stream failed; a plain request is, or shows that it could work. */
  #judge(error) {
    if (error.code !== "buffered" && error.code !== "refused") return error;
    const [channel] = this.#cursors.keys();
    return this.#describe(channel, AbortSignal.timeout(OPEN_MS)).then(() => error, (told) => told);
  }

  #describe(channel, signal) {
    return this.door.fetch(`channels/${channel}`, { signal });
  }

  async #recover(error) {
    const wasOpen = this.state === "open";
    const { code, message, status, retryMs } = error;
    if (this.closed || code === "restart") return;
    if (status === 401) this.door.held = undefined;
    if (status === 403 || (status === 401 && !wasOpen && this.#attempts)) {
      this.tell({ op: "error", error: { code, message, status } });
      this.#say("denied");
      return pause(this, RETRY_MAX_MS);
    }
    this.#say("waiting");
    if (!this.isProven && navigator.onLine !== false) this.#fallBack(code);
    const ms = Math.random() * Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** this.#attempts++);
    await pause(this, retryMs || (wasOpen && this.retryMs) || ms);
  }

  /** A transport that does not work on this network makes room for the other. */
  #fallBack(reason) {
    if (this.forced || !["buffered", "silent", "refused"].includes(reason)) return;
    this.fallback = reason;
    this.transport = this.transport === "sse" ? "ws" : "sse";
    this.tell({ op: "fallback", reason, transport: this.transport });
  }

  /** Finds where "from now on" is. An event stream says so itself if no channel has a cursor. */
  async #locate(signal) {
    const unknown = [...this.#cursors.keys()].filter((channel) => !this.#cursors.get(channel));
    if (this.transport === "sse" && unknown.length === this.#cursors.size) return;
    const locate = async (channel) => {
      const { last_id: id } = await (await this.#describe(channel, signal)).json();
      this.#cursors.set(channel, id ?? "earliest");
    };
    await Promise.all(unknown.map(locate));
    this.report();
  }

  /** Renews the token of the open connection before it runs out. */
  #renewInTime() {
    const ms = Math.max(RETRY_MS, this.door.msLeft());
    if (typeof this.door.source !== "function" || !(ms < FOR_EVER)) return;
    this.renewal = setTimeout(async () => {
      this.door.held = undefined;
      try {
        const token = await this.door.token();
        if (this.ask) await this.ask({ op: "auth", token });
        else await this.door.fetch(`sse/${this.connection}/token`, { method: "POST" });
        this.#renewInTime();
      } catch {
        // The server closes the connection in time, and the next one says what is wrong.
      }
    }, ms);
  }

  /** The network may be back, or have changed, or this machine was asleep: looks at once. */
  nudge() {
    this.hurry?.();
    if (this.state !== "open") return;
    if (Date.now() - this.heardAt > 1.5 * this.beat) this.#end("silent");
    else if (this.ask) this.#check();
  }

  /** Reconnects for other channels. Changes of one moment share the new connection. */
  #restart() {
    this.restarting ??= setTimeout(() => {
      this.restarting = undefined;
      this.#end("restart");
    });
  }

  #end(code) {
    this.hurry?.();
    this.abort?.abort(new PushlineError(code));
  }

  #say(state) {
    this.state = state;
    this.tell({ op: "state", state, transport: this.transport, connection: this.connection });
  }

  close() {
    this.closed = true;
    this.#end("closed");
  }
}

/** Carries messages between this tab and the link, which is in the tab that holds the lock. */
class Tabs {
  id = randomId();
  #wants = new Map(); // at the leader: tab -> its channels
  #close;
  #closed = new Promise((resolve) => (this.#close = resolve));

  constructor(name, makeLink, take) {
    Object.assign(this, { name, makeLink, take });
    if (!name || !navigator.locks) return void this.#lead();
    this.bus = new BroadcastChannel(name);
    this.bus.onmessage = ({ data }) => (data.op === "ask" ? this.#asked(data) : this.#hear(data));
    // Held as long as this tab lives: its release tells the leader that it is gone.
    this.held = new Promise((resolve) => {
      navigator.locks.request(name + this.id, () => (resolve(), this.#closed)).catch(resolve);
    });
    self.document?.addEventListener("freeze", () => this.#yield());
    this.#queue();
  }

  /** Leads once the leader is gone, or with `steal` at once. */
  #queue(options = {}) {
    const lead = () => {
      if (!this.isClosed) this.#lead();
      return Promise.race([this.#closed, new Promise((resolve) => (this.release = resolve))]);
    };
    navigator.locks.request(this.name, options, lead).catch(() => {
      // No page but this one may have the lock, or another tab has stolen the lead.
      if (this.link) this.#yield();
      else this.#lead();
    });
  }

  #lead() {
    const tell = (message) => {
      this.bus?.postMessage(message);
      queueMicrotask(() => this.take(message));
    };
    clearTimeout(this.doubt);
    this.link = this.makeLink(tell);
    tell({ op: "leader" });
  }

  /** A frozen tab would neither read nor give up the lead. */
  #yield() {
    if (!this.link) return;
    this.#retire();
    this.release?.();
    this.#queue();
  }

  #retire() {
    this.link?.close();
    this.link = undefined;
    this.#wants.clear();
  }

  /** Every message of the leader shows that its tab is not frozen. */
  #hear(message) {
    this.#doubt((3 + Math.random()) * BEAT_MS);
    this.take(message);
  }

  #doubt(ms) {
    clearTimeout(this.doubt);
    this.doubt = setTimeout(() => this.link || this.#queue({ steal: true }), ms);
  }

  /** Tells the link what this tab wants; without channels, asks it to check the connection. */
  async ask(channels) {
    const message = { op: "ask", tab: this.id, channels };
    // Without its lock the leader would take this tab for gone.
    await this.held;
    if (this.isClosed) return;
    if (this.link) return this.#asked(message);
    this.bus.postMessage(message);
    this.#doubt(FIRST_MS);
  }

  #asked({ tab, channels }) {
    const { link } = this;
    if (!link) return;
    if (channels) {
      if (!this.#wants.has(tab)) this.#watch(tab);
      this.#want(tab, channels.map(([channel]) => channel));
      link.tell({ op: "wanted", tab, from: link.want(channels) });
    } else {
      link.nudge();
    }
    link.report();
  }

  #watch(tab) {
    if (tab !== this.id) navigator.locks.request(this.name + tab, () => this.#want(tab, []));
  }

  #want(tab, channels) {
    this.#wants.set(tab, channels);
    this.link?.keep([...this.#wants.values()].flat());
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.doubt);
    this.#retire();
    this.bus?.close();
    this.#close();
  }
}

/** What a page holds. */
export class Pushline {
  state = "connecting";
  #options;
  #door;
  #tabs;
  #cursors = new Map(); // channel -> last id read; undefined: from now on
  #from = Infinity; // the first generation of the link that misses nothing for this tab
  #handlers = new Set();
  #own = new Set(); // ids of what was published to others: only a replay has it for this page
  #outbox = [];

  /** `url` is the server's; by default the one this file came from. */
  constructor(url = new URL(".", import.meta.url), options = {}) {
    const { channels = [], after, token, credentials, transport = "auto", share = true } = options;
    this.#options = options;
    this.#door = new Door(new URL(url, self.location), token, credentials);
    for (const channel of channels) this.#cursors.set(channel, after);
    if (options.onGap === "reload") this.on("gap", () => location.reload());
    this.#start(share, (tell) => new Link(this.#door, transport, tell));
    this.#listen(addEventListener);
  }

  async #start(share, makeLink) {
    // Tabs of two users share a browser, but no connection.
    const token = await this.#door.token().catch(() => undefined);
    const name = share && `pushline ${this.#door.base} ${claims(token).sub} ${share}`;
    if (this.state === "closed") return;
    this.#tabs = new Tabs(name, makeLink, (message) => this.#take(message));
    this.#want();
  }

  #listen(change) {
    for (const name of ["online", "pageshow", "focus", "visibilitychange"]) {
      change(name, this.#nudge);
    }
  }

  /** Calls `fn(data, { id, channel, event })`; returns a function that removes it. */
  on(event, fn) {
    const handler = { event, fn };
    this.#handlers.add(handler);
    return () => this.#handlers.delete(handler);
  }

  #emit(name, ...args) {
    for (const { event, fn } of this.#handlers) if (event === name) fn(...args);
  }

  /** `after` is an id or `"earliest"`; from now on if left out. */
  subscribe(channel, { after } = {}) {
    this.#cursors.set(channel, after);
    this.#want();
  }

  unsubscribe(channel) {
    this.#cursors.delete(channel);
    this.#want();
  }

  /**
   * Publishes text, bytes or a JSON value. Resolves with `{ id, channel, subscribers }` once
   * the event is in the log; waits while there is no network, and never publishes twice.
   */
  publish(channel, data, { event, key = randomId(), eventKey, ephemeral, others } = {}) {
    const isBytes = data instanceof ArrayBuffer || ArrayBuffer.isView(data);
    const isText = typeof data === "string";
    const type = isBytes ? "application/octet-stream" : isText ? "text/plain" : "application/json";
    const body = isBytes || isText ? data : JSON.stringify(data);
    const headers = { "Content-Type": type, "Idempotency-Key": key };
    if (event) headers["Event-Type"] = event;
    if (eventKey) headers["Event-Key"] = eventKey;
    if (ephemeral) headers["Event-Ephemeral"] = true;
    const to = others ? "others" : "all";
    headers["Publish-To"] = to;
    const op = !isBytes && { op: "publish", channel, data, event, key, event_key: eventKey, ephemeral, to };
    const request = { method: "POST", headers, body, others };
    return new Promise((resolve, reject) => {
      this.#outbox.push({ channel, op, request, resolve, reject });
      if (this.#outbox.length === 1) this.#flush();
    });
  }

  /**
   * The tokens of a channel's stream, those that came before too, until it ends. Fails if the stream
   * does, or if its beginning is not kept any more. It has a connection of its own as long as it lasts.
   */
  async *stream(channel) {
    const { read } = await import("./pushline-streams.js");
    yield* read(Pushline, PushlineError, this.#door.base, { ...this.#options, channels: [channel] });
  }

  /** Produces a channel's stream: `append`, then `end`. It has a WebSocket of its own as long as it lasts. */
  async produce(...about) {
    const { Producer } = await import("./pushline-streams.js");
    return new Producer(this.#door, PushlineError, ...about);
  }

  /** Stops a channel's stream, whoever produces it. Resolves with how far it came. */
  async cancel(channel) {
    return (await this.#door.fetch(`channels/${channel}/stream/cancel`, { method: "POST" })).json();
  }

  /** Who is on a channel, now and after each change: maps of subjects to what their tokens say about them. */
  async *presence(channel) {
    const { default: presence } = await import("./pushline-presence.js");
    const list = async () => (await this.#door.fetch(`channels/${channel}/presence`)).json();
    const follow = (after) => this.#cursors.get(channel) || this.subscribe(channel, { after });
    yield* presence(this, channel, { list, follow, isNews });
  }

  /** Every event from now on, gaps included, as `{ id, channel, event, data }`. */
  async *[Symbol.asyncIterator]() {
    const queue = [];
    let wake;
    const offs = [
      this.on("*", (event) => wake?.(queue.push(event))),
      this.on("state", () => wake?.()),
    ];
    try {
      while (this.state !== "closed") {
        const woken = new Promise((resolve) => (wake = resolve));
        while (queue.length) yield queue.shift();
        await woken;
      }
    } finally {
      for (const off of offs) off();
    }
  }

  close() {
    this.#listen(removeEventListener);
    this.#tabs?.close();
    this.#say("closed");
  }

  // --- what the link says ---

  #want() {
    this.#from = Infinity;
    this.#tabs?.ask([...this.#cursors]);
  }

  #take({ op, generation, tab, from, state, transport, connection, reason, error, cursors, ...event }) {
    const isOurs = generation >= this.#from;
    if (op === "leader") this.#want();
    else if (op === "wanted" && tab === this.#tabs.id) this.#from = from;
    else if (op === "state") {
      this.connection = connection;
      if (connection) this.hurry?.();
      this.#say(isOurs || state !== "open" ? state : "connecting", transport);
    } else if (op === "fallback") this.#emit("fallback", reason, transport);
    else if (op === "error") this.#emit("error", Object.assign(new PushlineError(), error));
    else if (isOurs && op === "at") this.#begin(cursors);
    else if (isOurs && op === "event") this.#event(event);
  }

  #begin(cursors) {
    for (const [channel, id] of cursors) {
      if (this.#cursors.has(channel)) this.#cursors.set(channel, this.#cursors.get(channel) ?? id);
    }
  }

  #event({ data, ...about }) {
    const { id, channel, event } = about;
    const isGap = event === "pushline.gap";
    // A gap matters only to pages that have not read beyond it.
    const end = isGap && data.reason !== "epoch" ? data.first ?? id : id;
    if (!this.#cursors.has(channel) || !isNews(end, this.#cursors.get(channel))) return;
    for (const [other, cursor] of this.#cursors) {
      if (cursor && isNews(id, cursor)) this.#cursors.set(other, id);
    }
    if (this.#own.has(id)) return;
    this.#own.clear();
    if (isGap) this.#emit("gap", data, about);
    else if (!OWN.includes(event)) this.#emit(event, data, about);
    this.#emit("*", { ...about, data });
  }

  #say(state, transport = this.transport) {
    if (this.state === "closed" || (state === this.state && transport === this.transport)) return;
    Object.assign(this, { state, transport });
    this.#emit("state", state, transport);
    if (state === "open") this.#flush();
  }

  #nudge = () => {
    if (!self.document?.hidden) this.#tabs?.ask();
    this.hurry?.();
  };

  // --- the outbox: one at a time, so that the order is kept ---

  async #flush() {
    this.hurry?.();
    if (this.flushing) return;
    this.flushing = true;
    while (this.#outbox.length && this.state !== "closed") {
      const [entry] = this.#outbox;
      try {
        const answer = await this.#send(entry);
        if (entry.request.others) this.#own.add(answer.id);
        entry.resolve(answer);
        this.#outbox.shift();
      } catch (error) {
        await this.#failed(entry, error);
      }
    }
    this.flushing = false;
  }

  async #send({ channel, op, request }) {
    try {
      const ask = op && this.#tabs?.link?.ask;
      if (ask) return { channel, ...(await ask(op)) };
    } catch {
      // A request tells more: whether to try again, and when.
    }
    if (request.others) {
      // Than the connection that reads, if one does; it has a name once it is open.
      if (this.#cursors.size && !this.connection) throw new PushlineError();
      request.headers["Publish-From"] = this.connection;
    }
    return (await this.#door.fetch(`channels/${channel}`, request)).json();
  }

  /** Waits out failures that pass; renews a token once. */
  async #failed(entry, error) {
    const { status = 0, retryMs } = error;
    if (status === 401 && !entry.isRenewed) {
      entry.isRenewed = true;
      this.#door.held = undefined;
    } else if (status === 0 || status === 408 || status === 429 || status >= 500) {
      await pause(this, retryMs || RETRY_MS);
    } else {
      this.#outbox.shift();
      entry.reject(error);
    }
  }
}

/** The shape of the browser's own `EventSource`, for pages that have one already. */
Pushline.EventSource = class extends EventTarget {
  readyState = 0;
  #push;

  constructor(address, { withCredentials } = {}) {
    super();
    const url = new URL(address, self.location);
    const channels = url.searchParams.getAll("channel");
    const after = url.searchParams.get("last_event_id") ?? undefined;
    const credentials = withCredentials ? "include" : "same-origin";
    this.#push = new Pushline(new URL(".", url), { channels, after, credentials });
    this.#push.on("state", (state) => this.#state(state));
    this.#push.on("*", (event) => {
      const told = channels.length > 1 ? event : event.data;
      const data = typeof told === "string" ? told : JSON.stringify(told);
      this.#tell(new MessageEvent(event.event, { data, lastEventId: event.id }));
    });
  }

  #state(state) {
    this.readyState = { open: 1, denied: 2, closed: 2 }[state] ?? 0;
    if (state === "open") this.#tell(new Event("open"));
    if (state === "waiting" || state === "denied") this.#tell(new Event("error"));
  }

  #tell(event) {
    this[`on${event.type}`]?.(event);
    this.dispatchEvent(event);
  }

  close() {
    this.#push.close();
  }
};

export default Pushline;

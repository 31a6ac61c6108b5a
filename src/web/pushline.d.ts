/** A channel's event as handlers get it. */
export interface About {
  id: string;
  channel: string;
  /** The event's type, `"message"` if the publisher gave none. */
  event: string;
  /** Whose token it was published with, where the channel tells. */
  publisher?: string;
}

export interface PushlineEvent extends About {
  /** Text, a JSON value, or a `Uint8Array`. */
  data: any;
}

/** Events that can no longer be replayed. */
export interface Gap {
  channel: string;
  reason: "evicted" | "epoch" | "overrun";
  after?: string;
  first?: string;
}

/** `waiting`: cut off, will try again; `denied`: refused with 401 or 403, will still try again. */
export type State = "connecting" | "open" | "waiting" | "denied" | "closed";
export type Transport = "sse" | "ws";

export interface Options {
  channels?: string[];
  /** Where to start reading `channels`: an id or `"earliest"`; from now on if left out. */
  after?: string;
  /** A token, or a function that is called when there is none or it is about to expire. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  transport?: "auto" | Transport;
  /** For requests, as in `fetch`: `"include"` sends cookies to another origin. */
  credentials?: RequestCredentials;
  /** Whether the tabs of this origin share one connection; tabs with the same name form a group. */
  share?: boolean | string;
  /** Reload the page when events were lost. */
  onGap?: "reload";
}

export interface PublishOptions {
  /** The event's type. */
  event?: string;
  /** A repeat with this key is the same event; one of its own if left out. */
  key?: string;
  /** In a state channel: which value it replaces. */
  eventKey?: string;
  /** For those who are there now; not kept. */
  ephemeral?: boolean;
  /** Not sent back to the connection this page reads by, which the tabs of a browser share. */
  others?: boolean;
}

export interface Published {
  id: string;
  channel: string;
  subscribers?: number;
}

/** How a stream ended. */
export interface StreamEnd {
  stream: string;
  channel: string;
  state: "done" | "error" | "cancelled";
  /** Its tokens. */
  events: number;
  first_id?: string;
  last_id?: string;
}

/** Produces a channel's stream; a connection that breaks is opened again, and no token is there twice. */
export interface Producer {
  /** The stream's name. */
  readonly stream: string;
  /** How it ended, whoever ended it; fails when it can't go on. */
  readonly ended: Promise<StreamEnd>;
  /** For `readable.pipeTo(producer.writable)`. */
  readonly writable: WritableStream<any>;
  /** Appends a token: text or a JSON value. Resolves once it is in the log. */
  append(token: unknown): Promise<{ offset?: number; id?: string }>;
  /** Ends the stream behind all that was appended. */
  end(): Promise<StreamEnd>;
  /** The same, as `error`. */
  fail(): Promise<StreamEnd>;
}

/** Why a connection or a publish failed; `status` is HTTP's, 0 if there was no answer. */
export class PushlineError extends Error {
  code: string;
  status: number;
  retryMs: number;
}

export class Pushline implements AsyncIterable<PushlineEvent> {
  /** `url` is the server's; by default the one this file came from. */
  constructor(url?: string | URL, options?: Options);

  readonly state: State;
  readonly transport: Transport;

  /** Each returns a function that removes the handler. */
  on(event: "state", fn: (state: State, transport: Transport) => void): () => void;
  on(event: "gap", fn: (gap: Gap, about: About) => void): () => void;
  on(event: "error", fn: (error: PushlineError) => void): () => void;
  /** The transport was changed, and why. */
  on(event: "fallback", fn: (reason: string, transport: Transport) => void): () => void;
  /** Every event, including those of the types above. */
  on(event: "*", fn: (event: PushlineEvent) => void): () => void;
  /** Events of one type; `"message"` stands for events without a type. */
  on(event: string, fn: (data: any, about: About) => void): () => void;

  subscribe(channel: string, options?: { after?: string }): void;
  unsubscribe(channel: string): void;

  /**
   * Publishes text, bytes or a JSON value. Resolves once the event is in the log; waits while
   * there is no network, and never publishes twice.
   */
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<Published>;

  /**
   * The tokens of a channel's stream, those that came before too, until it ends. Fails if the stream
   * does, or if its beginning is not kept any more. It has a connection of its own as long as it lasts.
   */
  stream(channel: string): AsyncGenerator<any, void>;

  /** Produces a channel's stream, over a WebSocket of its own as long as that lasts. */
  produce(channel: string, options?: { stream?: string }): Promise<Producer>;

  /** Stops a channel's stream, whoever produces it. */
  cancel(channel: string): Promise<{ id: string; channel: string; state: string; events: number }>;

  /**
   * Who is on a channel, now and after each change: maps of subjects to what their tokens say about them
   * (`info`). Subscribes to the channel if the page has not. What follows members is in
   * `pushline-presence.js`, beside this file, and loaded then.
   */
  presence(channel: string): AsyncGenerator<Map<string, any>, void>;

  /** Every event from now on, gaps included, until `close()`. */
  [Symbol.asyncIterator](): AsyncIterator<PushlineEvent>;

  close(): void;

  /** The shape of the browser's own `EventSource`, for pages that have one already. */
  static EventSource: new (url: string | URL, options?: EventSourceInit) => EventSource;
}

export default Pushline;

/**
 * A drop-in for the npm package `resumable-stream`, for servers (node 20 and later): the same four
 * functions, with Pushline in the place of Redis. The stream is in Pushline's log, so it can be read
 * on when the process that made it is gone.
 *
 *   import { createResumableStreamContext } from "./resumable-stream.js";
 *   const context = createResumableStreamContext({ waitUntil: after, url: "http://localhost:8080" });
 *
 * `headers` are sent with every request (`Authorization`). `subscriber` and `publisher` are ignored.
 */
export function createResumableStreamContext({
  waitUntil = null,
  url,
  headers = {},
  keyPrefix = "resumable-stream",
}) {
  const channelOf = (streamId) =>
    `${url}/channels/${`${keyPrefix}:${streamId}`.replace(/[^\w.:@!$-]/g, (c) => `~${c.codePointAt(0).toString(16)}`)}`;

  async function state(streamId) {
    const response = await fetch(channelOf(streamId), { headers });
    if (!response.ok) throw new Error(`Pushline answers ${response.status}`);
    return (await response.json()).stream?.state;
  }

  /** Posts a stream of strings, each a line of JSON, until it ends. */
  async function post(streamId, strings) {
    const line = new TransformStream({
      // The request is not sent before its body has a byte; an empty line is no token.
      start: (to) => to.enqueue("\n"),
      transform: (text, to) => to.enqueue(`${JSON.stringify(text)}\n`),
    });
    const response = await fetch(`${channelOf(streamId)}/stream`, {
      method: "POST",
      body: strings.pipeThrough(line).pipeThrough(new TextEncoderStream()),
      duplex: "half",
      headers: { ...headers, "Content-Type": "application/x-ndjson" },
    });
    if (!response.ok) throw new Error(`Pushline answers ${response.status}`);
  }

  async function resumeExistingStream(streamId, skipCharacters = 0) {
    const found = await state(streamId);
    if (found !== "open") return found === undefined ? undefined : null;
    const response = await fetch(`${channelOf(streamId)}/stream`, { headers });
    if (response.status === 204) return null;
    if (!response.ok) throw new Error(`Pushline answers ${response.status}`);
    return response.body
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(stringsOfEvents())
      .pipeThrough(skipping(skipCharacters));
  }

  async function createNewResumableStream(streamId, makeStream, skipCharacters = 0) {
    const [ours, theirs] = makeStream().tee();
    let failed;
    const posted = post(streamId, ours).catch((error) => (failed = error));
    waitUntil?.(posted);
    // It is there for others when this returns.
    while (!failed && (await state(streamId)) === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    // It ends here when it has ended there.
    const end = new TransformStream({ flush: async () => void (await posted) });
    return theirs.pipeThrough(end).pipeThrough(skipping(skipCharacters));
  }

  return {
    resumeExistingStream,
    createNewResumableStream,
    async resumableStream(streamId, makeStream, skipCharacters = 0) {
      const existing = await resumeExistingStream(streamId, skipCharacters);
      if (existing !== undefined) return existing;
      return createNewResumableStream(streamId, makeStream, skipCharacters);
    },
    async hasExistingStream(streamId) {
      const found = await state(streamId);
      if (found === undefined) return null;
      return found === "open" ? true : "DONE";
    },
  };
}

/** The strings in a plain view's events, which have one line of data each. */
function stringsOfEvents() {
  let rest = "";
  return new TransformStream({
    transform(text, to) {
      const events = (rest + text).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (event !== data && data !== "[DONE]") to.enqueue(JSON.parse(data));
      }
    },
  });
}

/** Leaves out the first characters. */
function skipping(count) {
  return new TransformStream({
    transform(text, to) {
      const left = text.slice(count);
      count -= text.length - left.length;
      if (left) to.enqueue(left);
    },
  });
}

// The part of pushline.js that follows who is on a channel; loaded when a page first asks for it.

const RETRY_MS = 1_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A channel's members, kept apart by node. */
class Members {
  #entries = new Map(); // node and subject -> subject and info

  constructor({ members }) {
    for (const member of members) for (const node of member.nodes ?? [""]) this.#put(node, member);
  }

  #put(node, { subject, info }) {
    this.#entries.set(node + subject, [subject, info]);
  }

  /** Applies an event about changes. */
  take({ node = "", reset, join, leave }) {
    if (reset) {
      for (const key of this.#entries.keys()) if (key.startsWith(node)) this.#entries.delete(key);
    }
    for (const member of join) this.#put(node, member);
    for (const subject of leave) this.#entries.delete(node + subject);
  }

  bySubject() {
    return new Map(this.#entries.values());
  }
}

/** Asks until there is an answer, or a refusal that is not temporary. */
async function ask(list) {
  for (;;) {
    try {
      return await list();
    } catch (error) {
      const { status = 0, retryMs } = error;
      if (status >= 400 && status < 500 && status !== 429) throw error;
      await pause(retryMs || RETRY_MS);
    }
  }
}

/**
 * Yields a map of subjects to what their tokens say about them: now, and after each change. `list` asks
 * the server; `follow` makes the page read the channel, from this id on if it does not read it yet.
 */
export default async function* presence(push, channel, { list, follow, isNews }) {
  const events = push[Symbol.asyncIterator]();
  let next = events.next(); // from here on no event is missed
  try {
    for (;;) {
      const listed = await ask(list);
      const members = new Members(listed);
      follow(listed.id);
      yield members.bySubject();
      for (let isGap = false; !isGap; ) {
        const { value: event, done } = await next;
        if (done) return;
        next = events.next();
        if (event.channel !== channel || !isNews(event.id, listed.id)) continue;
        isGap = event.event === "pushline.gap";
        if (event.event !== "pushline.presence") continue;
        members.take(event.data);
        yield members.bySubject();
      }
    }
  } finally {
    events.return();
  }
}

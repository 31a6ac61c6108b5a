// The operator's page: reads /metrics and the operator's API every two seconds, keeps five minutes of
// what it read, and draws that.

const POLL_MS = 2_000;
const SAMPLES = 150;

const find = (id) => document.getElementById(id);
const count = (n) => (n < 10 && n % 1 ? n.toFixed(1) : Math.round(n).toLocaleString("en"));
const bytes = (n) => {
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, n)) / 10));
  return `${count(n / 1024 ** power)} ${["B", "KiB", "MiB", "GiB"][power]}`;
};
const time = (s) => (s < 0.001 ? `${count(s * 1e6)} µs` : s < 1 ? `${count(s * 1e3)} ms` : `${count(s)} s`);
const span = (s) => (s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`);

/** An element with text and children; nothing a client chose is ever taken for HTML. */
const element = (name, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
};
const row = (...cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
const fill = (id, rows) => find(id).tBodies[0].replaceChildren(...rows);

async function ask(path, options = {}) {
  const key = sessionStorage.pushlineKey;
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) find("key-form").hidden = false;
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error?.message ?? `status ${response.status}`);
}

find("key-form").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.pushlineKey = find("key").value;
  find("key-form").hidden = true;
};

// --- metrics ---

/** One scrape: `[name, labels, value]` a line. */
const parse = (text) =>
  text.split("\n").filter((line) => line && line[0] !== "#").map((line) => {
    const [, name, labels = "", value] = /^(\w+)(?:\{(.*)\})? (.+)$/.exec(line);
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, text]) => [key, text]);
    return [name, Object.fromEntries(pairs), Number(value)];
  });

const samples = [];

/** What a metric's series with these labels add up to, in one sample. */
const sum = (sample, name, labels = {}) => {
  const fits = (of) => Object.entries(labels).every(([key, value]) => of[key] === value);
  const series = sample.metrics.filter(([known, of]) => known === `pushline_${name}` && fits(of));
  return series.reduce((total, [, , value]) => total + value, 0);
};
const now = (name, labels) => sum(samples.at(-1), name, labels);
const values = (name, labels) => samples.map((sample) => sum(sample, name, labels));

/** How fast a counter grew, between each two samples; one that restarts begins at 0. */
const rates = (name, labels) =>
  samples.slice(1).map((sample, at) => {
    const grown = sum(sample, name, labels) - sum(samples[at], name, labels);
    return Math.max(0, grown) / (sample.at - samples[at].at);
  });
const rate = (name, labels) => rates(name, labels).at(-1) ?? 0;

const labelsOf = (name, label) => [
  ...new Set(samples.at(-1).metrics.filter(([of]) => of === `pushline_${name}`).map(([, of]) => of[label])),
];

/** The bound below which this part of what a histogram counted between two samples was. */
const quantiles = (histogram, part) => {
  const name = `${histogram}_bucket`;
  const bounds = labelsOf(name, "le");
  return samples.slice(1).map((sample, at) => {
    const below = (le) => sum(sample, name, { le }) - sum(samples[at], name, { le });
    const all = below("+Inf");
    const bound = all > 0 ? Number(bounds.find((le) => below(le) >= part * all)) : 0;
    return Number.isFinite(bound) ? bound : 0;
  });
};
const lags = (part) => quantiles("delivery_lag_seconds", part);

// --- what is shown ---

function showServer() {
  const [, { version }] = samples.at(-1).metrics.find(([name]) => name === "pushline_build_info") ?? [, {}];
  const [driver] = labelsOf("driver_info", "driver");
  const started = samples.at(-1).metrics.find(([name]) => name === "process_start_time_seconds")?.[2];
  const state = now("draining") ? "draining" : now("log_up") ? "ready" : "the log is stalled";
  find("server").className = state === "ready" ? "" : "bad";
  find("server").textContent = `${version} on ${driver}, ${state}, up for ${span(Date.now() / 1000 - started)}`;
}

/** Of a server whose history is on disk. */
const journalTiles = () => ({
  [`Journal, ${count(now("journal_segments"))} segments`]: bytes(now("journal_bytes")),
  "Pages read from it/s": count(rate("journal_pages_total")),
  "Commit, 99 of 100": time(quantiles("journal_commit_duration_seconds", 0.99).at(-1) ?? 0),
});

/** Of a server that shares its log with others. */
const clusterTiles = () => ({
  Broker: now("cluster_up") ? "connected" : "away",
  [`Behind the log, ${count(now("cluster_behind_events"))} events`]: time(now("cluster_behind_seconds")),
  "Events from it/s": count(rate("cluster_events_received_total")),
  "Its answer, 99 of 100": time(quantiles("cluster_answer_duration_seconds", 0.99).at(-1) ?? 0),
});

function showTiles() {
  const tiles = {
    Connections: count(now("connections")),
    "Room for": count(now("connections_max")),
    Subscriptions: count(now("subscriptions")),
    "Deliveries/s": count(rate("deliveries_total")),
    "Events published/s": count(rate("events_published_total")),
    "Lag, median": time(lags(0.5).at(-1) ?? 0),
    "Lag, 99 of 100": time(lags(0.99).at(-1) ?? 0),
    Channels: count(now("channels")),
    "Events kept": count(now("history_events")),
    [`History, of ${bytes(now("history_bytes_max"))}`]: bytes(now("history_bytes")),
    "Slow readers": count(now("slow_consumers_total")),
    "Gaps told": count(now("gaps_total")),
    ...(now("journal_segments") > 0 && journalTiles()),
    ...(now("cluster_openings_total") > 0 && clusterTiles()),
  };
  const tile = ([name, value]) => element("div", {}, element("b", {}, value), element("span", {}, name));
  find("tiles").replaceChildren(...Object.entries(tiles).map(tile));
}

const svg = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/** Lines over the last five minutes, the newest on the right; `show` writes a value. */
function chart(title, show, series) {
  const most = Math.max(...Object.values(series).flat(), Number.MIN_VALUE);
  const box = svg("svg", { viewBox: `0 0 ${SAMPLES} 100`, preserveAspectRatio: "none", role: "img" });
  box.append(svg("line", { x1: 0, x2: SAMPLES, y1: 99, y2: 99 }));
  const names = Object.entries(series).map(([name, points], place) => {
    const x = (at) => SAMPLES - points.length + 1 + at;
    const path = points.map((value, at) => `${at ? "L" : "M"}${x(at)},${98 - (92 * value) / most}`);
    box.append(svg("path", { class: `series-${place}`, d: path.join("") }));
    return element("span", { className: `series-${place}` }, `${name} ${show(points.at(-1) ?? 0)}`);
  });
  box.setAttribute("aria-label", `${title}: ${names.map((name) => name.textContent).join(", ")}`);
  const caption = element("figcaption", {}, element("strong", {}, title), ...names);
  return element("figure", {}, caption, box);
}

function showCharts() {
  const transport = (name) => values("connections", { transport: name });
  find("charts").replaceChildren(
    chart("Connections", count, { SSE: transport("sse"), WebSocket: transport("ws"), HTTP: transport("http"), "HTTP/2": transport("http2") }),
    chart("Deliveries a second", count, { all: rates("deliveries_total") }),
    chart("Events a second", count, { published: rates("events_published_total"), refused: rates("publish_refusals_total") }),
    chart("Delivery lag", time, { median: lags(0.5), "99 of 100": lags(0.99) }),
  );
}

function showWorkers() {
  fill("workers", labelsOf("connections", "worker").map((worker) => {
    const open = (transport) => count(now("connections", { worker, transport }));
    const busy = `${count(100 * rate("busy_seconds_total", { worker }))} %`;
    const delivered = count(rate("deliveries_total", { worker }));
    return row(worker, open("sse"), open("ws"), open("http"), delivered, busy, count(now("lane_depth", { worker })));
  }));
}

/** Those that follow the same stream, this one first; there are none without a broker. */
async function showNodes() {
  const { nodes } = await (await ask("/v1/nodes")).json();
  find("cluster").hidden = nodes.length === 0;
  fill("nodes", nodes.map((of, place) =>
    row(place ? of.node : `${of.node} (this one)`, of.version, count(of.connections), count(of.head),
      time(of.behind_ms / 1000))));
}

/** Counters that say that something was not as a client wished, by reason. */
const REASONS = {
  connection_refusals_total: ["Connection refused", "reason"],
  log_refusals_total: ["Refused by the log", "reason"],
  http_errors_total: ["Request answered with an error", undefined],
  gaps_total: ["Gap told", "reason"],
  slow_consumers_total: ["Slow reader", "action"],
  client_fallbacks_total: ["Client changed its transport", "reason"],
  closes_total: ["Connection ended", "reason"],
};

function showReasons() {
  const rows = Object.entries(REASONS).flatMap(([name, [what, label]]) =>
    labelsOf(name, label).map((why) => {
      const labels = label && { [label]: why };
      const recently = now(name, labels) - sum(samples[0], name, labels);
      return { what, why: why ?? "", recently, ever: now(name, labels) };
    }),
  );
  const seen = rows.filter(({ ever }) => ever > 0).sort((a, b) => b.recently - a.recently);
  fill("reasons", seen.map(({ what, why, recently, ever }) => row(what, why.replaceAll("_", " "), count(recently), count(ever))));
}

async function showChannels() {
  const { channels } = await (await ask("/v1/channels?limit=1000")).json();
  channels.sort((a, b) => b.subscribers - a.subscribers);
  fill("channels", channels.slice(0, 10).map(({ channel, subscribers, events, last_id: id }) =>
    row(channel, count(subscribers), count(events), id ?? "none yet")));
}

async function poll() {
  try {
    const text = await (await ask("/metrics")).text();
    samples.push({ at: Date.now() / 1000, metrics: parse(text) });
    if (samples.length > SAMPLES) samples.shift();
    for (const show of [showServer, showTiles, showCharts, showWorkers, showReasons]) show();
    await showChannels();
    await showNodes();
  } catch (error) {
    find("server").className = "bad";
    find("server").textContent = `No answer: ${error.message}`;
  }
  setTimeout(poll, POLL_MS);
}

// --- connections ---

async function list() {
  const subject = find("subject").value;
  const query = new URLSearchParams({ limit: 100, node: "all", ...(subject && { subject }) });
  const { connections, next, silent = [] } = await (await ask(`/v1/connections?${query}`)).json();
  find("revoke").disabled = !subject;
  const found = next ? `The first ${connections.length}.` : `${connections.length} in all.`;
  find("found").textContent = found + silent.map((node) => ` Node ${node} does not answer.`).join("");
  fill("connections", connections.map((of) => {
    const cut = element("button", { onclick: () => act(`/v1/connections/${of.id}`) }, "Cut");
    cut.setAttribute("aria-label", `Cut ${of.id}`);
    const more = of.channel_count > of.channels.length ? ` and ${of.channel_count - of.channels.length} more` : "";
    return row(of.id, of.transport, of.client ?? "", of.subject ?? "", of.channels.join(" ") + more,
      span(of.age_seconds), count(of.behind), cut);
  }));
}

/** Deletes something, says what came of it, and lists again. */
async function act(path) {
  await told(async () => {
    await ask(path, { method: "DELETE" });
    await list();
  });
}

async function told(work) {
  try {
    await work();
  } catch (error) {
    find("found").textContent = error.message;
  }
}

find("find").onsubmit = (event) => {
  event.preventDefault();
  told(list);
};
find("revoke").onclick = () => act(`/v1/subjects/${encodeURIComponent(find("subject").value)}`);

// --- try it ---

find("url").value = `http://${location.hostname}:${find("url").dataset.port}`;

const say = (text) => {
  find("frames").append(text);
  find("frames").scrollTop = find("frames").scrollHeight;
};
const headers = () => (find("token").value ? { Authorization: `Bearer ${find("token").value}` } : {});
let stream;

/** Shows a stream as it comes. */
async function subscribe() {
  stream = new AbortController();
  const path = `/sse?channel=${encodeURIComponent(find("channel").value)}`;
  say(`> GET ${path}\n`);
  const response = await fetch(new URL(path, find("url").value), { headers: headers(), signal: stream.signal });
  say(`< ${response.status}\n`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) say(read.value);
}

find("subscribe").onclick = async () => {
  if (stream) return stream.abort();
  find("subscribe").textContent = "End";
  await subscribe().catch((error) => say(`< ${error.name === "AbortError" ? "ended here" : error.message}\n`));
  stream = undefined;
  find("subscribe").textContent = "Subscribe";
};

find("try").onsubmit = async (event) => {
  event.preventDefault();
  const path = `/channels/${encodeURIComponent(find("channel").value)}`;
  say(`> POST ${path}\n`);
  try {
    const request = { method: "POST", headers: headers(), body: find("data").value };
    const response = await fetch(new URL(path, find("url").value), request);
    say(`< ${response.status} ${await response.text()}\n`);
  } catch (error) {
    say(`< ${error.message}\n`);
  }
};

poll();
told(list);

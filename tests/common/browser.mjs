// Drives one browser for tests/common/browser.rs: one command a line on standard input, one answer
// a line on standard output, as soon as there is one. Each test has pages of its own. The browser ends
// when the input does.
// Arguments: chrome or firefox, and its program.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import puppeteer from 'puppeteer-core';

// Only a failure takes this long: a slow machine may start browsers for half a minute.
const PATIENCE_MS = 120_000;

const [browser, executablePath] = process.argv.slice(2);
// Chromium as root has no sandbox, and is not to call home from a test.
const quiet = ['no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-sync',
  'disable-background-networking', 'disable-component-update'].map((flag) => `--${flag}`);
const running = await puppeteer.launch({
  browser, executablePath, headless: true, acceptInsecureCerts: true,
  args: browser === 'chrome' ? quiet : [], timeout: PATIENCE_MS, protocolTimeout: PATIENCE_MS,
});

/**
 * Profiles and their pages come and go one at a time, whichever test asks: Firefox now and then
 * discards a page that it opens while others go.
 */
let turn = Promise.resolve();
function inTurn(act) {
  const done = turn.then(act);
  turn = done.catch(() => {});
  return done;
}

async function newPage(profile) {
  const page = await inTurn(() => profile.newPage());
  page.setDefaultNavigationTimeout(PATIENCE_MS);
  return page;
}

/** What one test has: its pages in their order, and what is to end with them. */
class Test {
  pages = [];
  ends = [];

  async profile() {
    const profile = await inTurn(() => running.createBrowserContext());
    this.ends.push(() => inTurn(() => profile.close()));
    return profile;
  }
}

const tests = new Map();

/** An origin on this machine with this page: a browser keeps pages from elsewhere away from it. */
async function elsewhere(test, body) {
  const server = createServer((_, answer) => {
    answer.writeHead(200, { 'Content-Type': 'text/html', Connection: 'close' });
    answer.end(body);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  test.ends.push(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

/** Shows this page in the place of one of that origin: no connection to its server is warmed. */
async function pretend(page, origin, body) {
  await page.setRequestInterception(true);
  page.once('request', (request) => request.respond({ contentType: 'text/html', body }));
  await page.goto(`${origin}/page`);
  await page.setRequestInterception(false);
}

const commands = {
  /**
   * Pages with this script, each in a profile of its own: with connections of its own, as on another
   * machine. Without an origin they come from another one.
   */
  async open(test, { origin, script, count }) {
    const body = `<!doctype html><link rel=icon href="data:,"><script>${script}</script>`;
    const foreign = origin ? null : await elsewhere(test, body);
    await Promise.all(Array.from({ length: count }, async () => {
      const profile = await test.profile();
      const page = await newPage(profile);
      await (origin ? pretend(page, origin, body) : page.goto(foreign));
      test.pages.push(page);
    }));
  },
  /** Tabs of one profile that show the server's own page, with this script. */
  async tabs(test, { origin, script, count }) {
    const profile = await test.profile();
    for (let opened = 0; opened < count; opened += 1) {
      const page = await newPage(profile);
      await page.goto(`${origin}/`);
      await page.addScriptTag({ content: script });
      test.pages.push(page);
    }
  },
  /** Pages at this address, or with this text at another origin; each in a profile of its own. */
  async visit(test, { address, body, count }) {
    const url = address ?? await elsewhere(test, body);
    for (let opened = 0; opened < count; opened += 1) {
      const profile = await test.profile();
      const page = await newPage(profile);
      await page.goto(url);
      test.pages.push(page);
    }
  },
  /** What the expression is in each of these pages; a promise is waited for. */
  evaluate({ pages }, { from, to, expression }) {
    return Promise.all(pages.slice(from, to).map((page) => page.evaluate(expression)));
  },
  async close({ pages }, { page }) {
    await pages.splice(page, 1)[0].close();
  },
  /** Chromium alone: the page's process ends. */
  async crash({ pages }, { page }) {
    const session = await pages.splice(page, 1)[0].createCDPSession();
    // It never answers.
    session.send('Page.crash').catch(() => {});
  },
  /** Chromium alone: what its protocol for developers can do to a page. */
  async protocol({ pages }, { page, method, parameters }) {
    // What it does to the network lasts as long as the session.
    pages[page].session ??= await pages[page].createCDPSession();
    await pages[page].session.send(method, parameters);
  },
  /** The test is over. */
  async end(test) {
    await Promise.all(test.ends.map((end) => end()));
  },
};

async function obey({ id, test, command, ...given }) {
  if (!tests.has(test)) tests.set(test, new Test());
  try {
    const answer = await commands[command](tests.get(test), given) ?? [];
    console.log(JSON.stringify({ id, answer }));
  } catch (error) {
    console.log(JSON.stringify({ id, error: String(error) }));
  }
}

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => obey(JSON.parse(line)));
lines.on('close', async () => {
  await running.close();
  process.exit(0);
});

// Drives one browser for tests/common/browser.rs: one command a line on standard input, one answer
// a line on standard output. The browser ends when the input does.
// Arguments: chrome or firefox, and its program.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import puppeteer from 'puppeteer-core';

const [browser, executablePath] = process.argv.slice(2);
// Chromium as root has no sandbox, and is not to call home from a test.
const quiet = ['no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-sync',
  'disable-background-networking', 'disable-component-update'].map((flag) => `--${flag}`);
const running = await puppeteer.launch({
  browser, executablePath, headless: true, acceptInsecureCerts: true,
  args: browser === 'chrome' ? quiet : [],
});
const pages = [];

/** An origin on this machine with this page: a browser keeps pages from elsewhere away from it. */
async function elsewhere(body) {
  const server = createServer((_, answer) => {
    answer.writeHead(200, { 'Content-Type': 'text/html', Connection: 'close' });
    answer.end(body);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
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
  async open({ origin, script, count }) {
    const body = `<!doctype html><link rel=icon href="data:,"><script>${script}</script>`;
    const foreign = origin ? null : await elsewhere(body);
    await Promise.all(Array.from({ length: count }, async () => {
      const profile = await running.createBrowserContext();
      const page = await profile.newPage();
      await (origin ? pretend(page, origin, body) : page.goto(foreign));
      pages.push(page);
    }));
    return [];
  },
  /** Tabs of one profile that show the server's own page, with this script. */
  async tabs({ origin, script, count }) {
    const profile = await running.createBrowserContext();
    for (let opened = 0; opened < count; opened += 1) {
      const page = await profile.newPage();
      await page.goto(`${origin}/`);
      await page.addScriptTag({ content: script });
      pages.push(page);
    }
    return [];
  },
  /** Pages at this address, or with this text at another origin; each in a profile of its own. */
  async visit({ address, body, count }) {
    const url = address ?? await elsewhere(body);
    for (let opened = 0; opened < count; opened += 1) {
      const profile = await running.createBrowserContext();
      const page = await profile.newPage();
      await page.goto(url);
      pages.push(page);
    }
    return [];
  },
  /** What the expression is in each of these pages; a promise is waited for. */
  evaluate({ from, to, expression }) {
    return Promise.all(pages.slice(from, to).map((page) => page.evaluate(expression)));
  },
  async close({ page }) {
    await pages.splice(page, 1)[0].close();
    return [];
  },
  /** Chromium alone: the page's process ends. */
  async crash({ page }) {
    const session = await pages.splice(page, 1)[0].createCDPSession();
    // It never answers.
    session.send('Page.crash').catch(() => {});
    return [];
  },
  /** Chromium alone: what its protocol for developers can do to a page. */
  async protocol({ page, method, parameters }) {
    // What it does to the network lasts as long as the session.
    pages[page].session ??= await pages[page].createCDPSession();
    await pages[page].session.send(method, parameters);
    return [];
  },
};

console.log(JSON.stringify({ answer: [] }));
const lines = createInterface({ input: process.stdin });
lines.on('close', async () => {
  await running.close();
  process.exit(0);
});
for await (const line of lines) {
  const { command, ...given } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ answer: await commands[command](given) }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}

// A page of a web application, as far as the snippets of the README need a browser: requests carry
// the page's origin and, with credentials, its cookie; an answer that CORS does not let the page
// read is an error.
//
//   node --experimental-websocket page.mjs SNIPPET ORIGIN TOKEN
//
// Runs the file SNIPPET. The token is the session's cookie, and the variable `token`. A line on
// standard input is a newer one: it is taken, and the snippet's `renew` called if it has one.

import { readFileSync } from "node:fs";
import http from "node:http";
import { createInterface } from "node:readline";

const [snippetFile, origin, firstToken] = process.argv.slice(2);
let token = firstToken;

function ask(url, method, withCredentials, answered, failed) {
    const headers = { Origin: origin };
    if (withCredentials) headers.Cookie = `session=${token}`;
    const request = http.request(url, { method, headers }, (response) => {
        const allowed = response.headers["access-control-allow-origin"];
        const credentials = response.headers["access-control-allow-credentials"];
        const mayRead = withCredentials ? allowed === origin && credentials === "true"
            : allowed === origin || allowed === "*";
        if (mayRead) answered(response);
        else failed(new TypeError(`CORS: ${response.statusCode}`));
    });
    request.on("error", failed);
    request.end();
}

class EventSource extends EventTarget {
    constructor(url, { withCredentials = false } = {}) {
        super();
        const fail = (error) => console.log(`stream: ${error.message}`);
        ask(url, "GET", withCredentials, (response) => {
            let text = "";
            response.setEncoding("utf8");
            response.on("data", (piece) => {
                const events = (text + piece).split("\n\n");
                text = events.pop();
                events.forEach((event) => this.#dispatch(event));
            });
            response.on("end", () => console.log("stream: ended"));
        }, fail);
    }

    #dispatch(text) {
        const fields = (name) => text.split("\n").filter((line) => line.startsWith(`${name}: `))
            .map((line) => line.slice(name.length + 2));
        const [type = "message"] = fields("event");
        const data = fields("data");
        if (data.length === 0) return;
        const event = new MessageEvent(type, { data: data.join("\n") });
        if (type === "message") this.onmessage?.(event);
        this.dispatchEvent(event);
    }
}

class PageWebSocket extends WebSocket {
    constructor(url, protocols) {
        super(url, { protocols, headers: { Origin: origin } });
        this.addEventListener("close", (event) => console.log(`socket: closed ${event.code}`));
    }
}

const fetchAsPage = (url, { method = "GET", credentials = "same-origin" } = {}) =>
    new Promise((resolve, reject) => {
        const answered = (response) => resolve({ status: response.statusCode });
        ask(url, method, credentials === "include", answered, reject);
    });

const names = ["EventSource", "WebSocket", "fetch", "token", "newToken"];
const body = `${readFileSync(snippetFile, "utf8")}
    return () => typeof renew === "function" ? renew() : undefined;`;
const renew = new Function(...names, body)(
    EventSource, PageWebSocket, fetchAsPage, token, async () => token);

for await (const line of createInterface({ input: process.stdin })) {
    token = line;
    const answer = await renew();
    console.log(`renewed: ${answer?.status ?? "sent"}`);
}
process.exit(0);

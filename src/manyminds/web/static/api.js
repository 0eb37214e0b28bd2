/** What the page asks of its node: JSON, streams, chat, Markdown. Knows no element of the page.
 *
 * `live` tells everybody what the node says of itself:
 *   traffic, request, changed   as `GET /v1/admin/events` sends them, in `event.detail`
 *   up, down                    the node answers again, or no longer; `event.detail.retry_s` until the next try
 *   closed                      it answers, but not this listener; `event.detail.error` says why
 */

const KEY = "manyminds.key";
const MARKDOWN_CHARS = 100_000; // what POST /v1/markdown takes

export const live = new EventTarget();

/** An answer of the node that is no success, with its own message. `status` 0: no answer at all. */
export class ApiError extends Error {
  constructor(status, { message, type, code, param } = {}) {
    super(message || (status ? `The node says ${status}.` : "The node does not answer."));
    Object.assign(this, { name: "ApiError", status, type, code, param });
  }
}

/** @param {string} name @param {object} [detail] */
export const tell = (name, detail) => live.dispatchEvent(new CustomEvent(name, { detail }));

// --- keys ------------------------------------------------------------------------------------------

let asking = null; // a promise while the reader is asked for a key
let askForKey = async () => false;

/** How to ask the reader for a key: `ask(error)` resolves to whether one was given. */
export const onKeyNeeded = (ask) => (askForKey = ask);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const setKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

/** Asks once, however many requests wait for it. */
const keyGiven = (error) => (asking ??= askForKey(error).finally(() => (asking = null)));

/** An admin's endpoint wants an admin's key; elsewhere 403 is about what was asked for, not about the key. */
const wantsKey = (path, error) => error.status === 401 || (error.status === 403 && path.startsWith("/v1/admin/"));

// --- requests --------------------------------------------------------------------------------------

/** A response that is a success; asks for a key where one is missing, unless `quiet`.
 * @param {string} path @param {{method?: string, body?: object, signal?: AbortSignal, quiet?: boolean}} [options]
 * @returns {Promise<Response>} @throws {ApiError}
 */
async function request(path, { method, body, signal, quiet = false } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...(body && { "content-type": "application/json" }), ...(key && { authorization: `Bearer ${key}` }) };
    const options = { method: method ?? (body ? "POST" : "GET"), headers, signal, body: body && JSON.stringify(body) };
    const response = await reach(path, options);
    if (response.ok) return response;
    const { error: said } = await response.json().catch(() => ({}));
    const error = new ApiError(response.status, said);
    if (quiet || !wantsKey(path, error) || !(await keyGiven(error))) throw error;
  }
}

/** `fetch`, where no answer is an ApiError too, and `down` is told. */
async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    watch.lost();
    throw new ApiError(0);
  }
}

/** @param {string} path @returns {Promise<any>} @throws {ApiError} */
export const get = async (path, options) => (await request(path, options)).json();

/** @param {string} path @param {object} body @returns {Promise<any>} @throws {ApiError} */
export const post = async (path, body, options) => (await request(path, { ...options, method: "POST", body })).json();

/** Server-sent events of any method; `onEvent(json)` for each. EventSource could send no key.
 * @returns {Promise<boolean>} whether it ended with `[DONE]` @throws {ApiError}
 */
export async function stream(path, { method, body, signal, quiet, onEvent, onOpen }) {
  const response = await request(path, { method, body, signal, quiet });
  onOpen?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let done = false;
  for (;;) {
    const { value, done: ended } = await reader.read().catch((error) => {
      throw signal?.aborted ? error : new ApiError(0, { message: "The connection to the node broke off." });
    });
    if (ended) return done;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      const data = lines.map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") done = true;
      else if (data) onEvent(JSON.parse(data));
    }
  }
}

/** A chat completion as it comes: `onText(piece)`, `onEvent(event)` of the panel, `onReport(report)` at the end.
 * @param {object} asked the request's body, without `stream`
 * @returns {Promise<void>} @throws {ApiError} also where the answer broke off
 */
export async function chat(asked, { onText, onEvent, onReport, signal }) {
  const body = { ...asked, stream: true };
  const onChunk = (chunk) => {
    if (chunk.error) throw new ApiError(chunk.error.status ?? 502, chunk.error);
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) onText?.(piece);
    if (chunk.manyminds?.event) onEvent?.(chunk.manyminds);
    else if (chunk.manyminds) onReport?.(chunk.manyminds);
  };
  const whole = await stream("/v1/chat/completions", { body, signal, onEvent: onChunk });
  if (!whole) throw new ApiError(502, { message: "The answer broke off: it is not whole." });
}

// --- Markdown --------------------------------------------------------------------------------------

const policy = globalThis.trustedTypes?.createPolicy("manyminds", { createHTML: (html) => html });

const ELEMENTS = new Set(
  ("a abbr b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i ins kbd li mark ol p pre q s samp small span " +
    "strong sub sup table tbody td tfoot th thead tr u ul var").split(" "),
);
const ATTRIBUTES = new Set(["href", "title", "colspan", "rowspan", "start", "align"]);

/** Model output as Markdown, made safe by the node, and once more here.
 * @param {string} text @returns {Promise<DocumentFragment>} @throws {ApiError}
 */
export async function html(text, options) {
  if (text.length > MARKDOWN_CHARS) return new Text(text);
  const answer = await post("/v1/markdown", { text }, options);
  const template = document.createElement("template"); // inert: nothing in it runs or loads
  template.innerHTML = policy ? policy.createHTML(answer.html) : answer.html;
  for (const element of template.content.querySelectorAll("*")) {
    if (!ELEMENTS.has(element.localName) || element.namespaceURI !== "http://www.w3.org/1999/xhtml") element.remove();
    else strip(element);
  }
  return template.content;
}

function strip(element) {
  for (const { name } of [...element.attributes]) if (!ATTRIBUTES.has(name)) element.removeAttribute(name);
  if (element.localName !== "a") return element.removeAttribute("href");
  if (!/^(https?|mailto):/i.test(element.getAttribute("href") ?? "")) return element.removeAttribute("href");
  element.rel = "noopener noreferrer nofollow";
  element.target = "_blank";
}

// --- the node's own news ---------------------------------------------------------------------------

const LONGEST_WAIT_S = 30;
const REFUSED_WAIT_S = 60; // too many listeners, or no right to listen: another may leave, a key may come

/** One listener for the whole page: a browser keeps few connections to one host. */
export const watch = {
  up: null, // not known yet
  wait_s: 1,
  timer: 0,
  abort: null,

  /** Begins to listen, or tries again at once. */
  async start() {
    clearTimeout(this.timer);
    this.abort?.abort();
    const { signal } = (this.abort = new AbortController());
    try {
      if (this.up === false) await this.knock(signal);
      await stream("/v1/admin/events", {
        signal,
        quiet: true,
        onOpen: () => this.found(),
        onEvent: (event) => tell(event.event, event),
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status) return this.refused(error);
    }
    if (!signal.aborted) this.lost();
  },

  /** Whether the node answers at all, which needs no key. */
  async knock(signal) {
    const response = await fetch("/health/live", { signal, cache: "no-store" });
    if (!response.ok) throw new ApiError(0);
  },

  found() {
    this.wait_s = 1;
    if (this.up !== true) tell("up", { again: this.up === false });
    this.up = true;
  },

  refused(error) {
    this.found();
    tell("closed", { error });
    if (error.status !== 401 && error.status !== 403) this.timer = setTimeout(() => this.start(), REFUSED_WAIT_S * 1000);
  },

  lost() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.up = false;
    tell("down", { retry_s: this.wait_s });
    this.timer = setTimeout(() => this.start(), this.wait_s * 1000);
    this.wait_s = Math.min(this.wait_s * 2, LONGEST_WAIT_S);
  },
};

/** The page's frame: views by the address's hash, theme, live status, the banner when the node is away, keys. */

import * as api from "./api.js";
import { failure, h, plural, usd } from "./ui.js";

const VIEWS = ["ask", "experts", "library", "frontier", "network", "ledger"];
const id = (name) => document.getElementById(name);

// --- views -----------------------------------------------------------------------------------------

let unmount = () => {};
let shown = null;

/** A view is a module with `title` and `mount(root, api)`, which returns what takes it away again. */
async function show() {
  const name = location.hash.replace(/^#\/?/, "").split(/[/?]/)[0] || "ask";
  const view = VIEWS.includes(name) ? name : "ask";
  if (view === shown) return;
  const first = shown === null;
  shown = view;
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  unmount();
  unmount = () => {};
  const main = id("main");
  main.replaceChildren();
  main.dataset.view = view;
  try {
    if (view !== "ask") style("/assets/views.css");
    const module = await import(`./${view}.js`);
    if (shown !== view) return;
    document.title = `${module.title} · manyminds`;
    unmount = module.mount(main, api) ?? unmount;
  } catch (error) {
    document.title = "manyminds";
    main.replaceChildren(h("h1", {}, "This view could not be shown"), failure(error));
    shown = null; // so that following the link again tries again
  }
  if (!first) main.focus();
}

/** The hash names the view, so the skip link moves the focus alone. */
function skip(event) {
  event.preventDefault();
  id("main").focus();
}

/** Styles of the views but the first, once any of them is shown. */
function style(href) {
  if (!document.querySelector(`link[href="${href}"]`)) document.head.append(h("link", { rel: "stylesheet", href }));
}

// --- theme -----------------------------------------------------------------------------------------

function themed() {
  const select = id("theme");
  select.value = document.documentElement.dataset.theme;
  select.addEventListener("change", () => {
    document.documentElement.dataset.theme = select.value;
    localStorage.setItem("manyminds.theme", select.value);
  });
}

// --- status and banner -----------------------------------------------------------------------------

function status(text, tone) {
  id("status").dataset.tone = tone;
  id("status-text").textContent = text;
}

function traffic({ detail: now }) {
  const rate = now.requests_per_min;
  const requests = `${rate < 10 ? Number(rate.toFixed(1)) : Math.round(rate)} requests/min`;
  const up = now.running === undefined ? plural(now.experts, "expert") : `${now.running} of ${plural(now.experts, "expert")} up`;
  status(`${requests} · ${usd(now.cost_usd)} · ${up}`, "ok");
  id("status").title = `${plural(now.requests, "request")} since the node began, ${now.in_flight} under way, ${plural(now.peers, "peer")}`;
}

let countdown = 0;

function away({ detail: { retry_s } }) {
  const until = Date.now() + retry_s * 1000;
  const banner = id("banner");
  clearInterval(countdown);
  const say = () => {
    const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
    id("banner-text").textContent = `The node does not answer. Trying again ${left ? `in ${left} s` : "now"}.`;
  };
  banner.setAttribute("aria-live", banner.hidden ? "assertive" : "off"); // said once, not each second
  say();
  banner.hidden = false;
  countdown = setInterval(say, 1000);
  status("No connection", "bad");
}

function back() {
  clearInterval(countdown);
  id("banner").hidden = true;
  id("key-button").hidden = !api.hasKey();
}

function refused({ detail: { error } }) {
  const denied = error.status === 401 || error.status === 403;
  status(denied ? "Live status needs an admin's key" : error.message, "warn");
  id("key-button").hidden = !denied && !api.hasKey();
}

// --- keys ------------------------------------------------------------------------------------------

/** Resolves to whether the reader gave a key. */
function askForKey(error) {
  const dialog = id("key-dialog");
  if (dialog.open) return Promise.resolve(false);
  id("key-why").textContent = error.message;
  id("key-input").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const closed = () => {
      const given = dialog.returnValue === "given";
      if (given) {
        api.setKey(id("key-input").value.trim());
        setTimeout(() => api.watch.start());
      }
      id("key-input").value = "";
      resolve(given);
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}

function keyed() {
  const dialog = id("key-dialog");
  id("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("given");
  });
  id("key-cancel").addEventListener("click", () => dialog.close(""));
  id("key-button").addEventListener("click", async () => {
    const given = await askForKey({ message: "Another key may open more views." });
    if (given) {
      shown = null;
      show();
    }
  });
  api.onKeyNeeded(askForKey);
}

// --- begin -----------------------------------------------------------------------------------------

themed();
keyed();
api.live.addEventListener("traffic", traffic);
api.live.addEventListener("down", away);
api.live.addEventListener("up", back);
api.live.addEventListener("closed", refused);
id("banner-retry").addEventListener("click", () => api.watch.start());
document.querySelector(".skip").addEventListener("click", skip);
addEventListener("hashchange", show);
show();
api.watch.start();

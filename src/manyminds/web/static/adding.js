/** The form that adds an expert: choosing its model, probing it as one watches, and what came of that. */

import { exact, listed } from "./parts.js";
import { announce, count, failure, h, plural, usd } from "./ui.js";

const FIELDS = [
  { name: "url", label: "Address", type: "url", required: true, placeholder: "http://127.0.0.1:11434/v1", hint: "Of an OpenAI-compatible server.", wide: true },
  { name: "model", label: "Model", hint: "Its name there; needed where there are several." },
  { name: "name", label: "Name", hint: "What callers call it. Default: its model's name." },
  { name: "key_env", label: "Variable with its key", pattern: "[A-Za-z_][A-Za-z0-9_]*", placeholder: "OPENAI_API_KEY", hint: "The name of an environment variable of the node, never the key." },
  { name: "source", label: "Source", hint: "Whom attribution credits. Default: its own name." },
  { name: "price_in_usd_per_m", label: "Price of a million tokens read, $", type: "number" },
  { name: "price_out_usd_per_m", label: "Price of a million tokens written, $", type: "number" },
  { name: "skills", label: "Skills", hint: "What it is good at, with commas between.", wide: true },
];
const PROBES = 64;

/** @param {() => void} onAdded called whenever somebody was added
 * @returns {{element: HTMLElement, toggle: () => void, stop: () => void, opener: HTMLElement | null}}
 */
export function adding(api, onAdded) {
  let running = null; // an AbortController while the node adds and probes
  const inputs = new Map(FIELDS.map((field) => [field.name, input(field)]));
  const probe = h("input", { type: "checkbox", checked: true, id: "add-probe" });
  const submit = h("button", { type: "submit", class: "primary" }, "Add");
  const stop = h("button", { type: "button", hidden: true, onclick: () => running?.abort() }, "Stop probing");
  const bar = h("progress", { hidden: true, max: PROBES, value: 0, "aria-label": "Probes answered" });
  const now = h("p", { class: "note", role: "status" });
  const told = h("div", {});
  const hint = "Ask it some questions with known answers, which costs what they cost, and take it into the network where that makes it better.";
  const form = h("form", { class: "adding", onsubmit: (event) => (event.preventDefault(), begin()) },
    h("h2", {}, "Add an expert"),
    h("div", { class: "fields" }, FIELDS.map((field) => labelled(field, inputs.get(field.name)))),
    h("div", { class: "row check" }, probe, h("label", { htmlFor: "add-probe" }, "Probe it", h("span", { class: "note" }, ` ${hint}`))),
    h("div", { class: "row" }, submit, stop, h("button", { type: "button", class: "quiet", onclick: () => view.toggle() }, "Close")),
    h("div", { class: "progress" }, bar, now), told);
  const element = h("section", { class: "card", hidden: true, "aria-label": "Add an expert" }, form);

  function busy(is) {
    submit.disabled = is;
    stop.hidden = !is;
    if (is) told.replaceChildren();
    else if (document.activeElement === document.body || document.activeElement === stop) submit.focus();
  }

  function asked() {
    const text = Object.fromEntries([...inputs].map(([name, one]) => [name, one.value.trim()]).filter(([, value]) => value));
    for (const name of ["price_in_usd_per_m", "price_out_usd_per_m"]) if (text[name]) text[name] = Number(text[name]);
    if (text.skills) text.skills = text.skills.split(",").map((skill) => skill.trim()).filter(Boolean);
    return { ...text, probe: probe.checked };
  }

  async function begin() {
    if (running) return;
    const heard = { name: null, failed: false, offered: false, settled: false };
    running = new AbortController();
    busy(true);
    now.textContent = "Looking at what answers there…";
    try {
      const whole = await api.stream("/v1/admin/add", { method: "POST", body: asked(), signal: running.signal, onEvent: (event) => on(event, heard) });
      if (!whole && !heard.failed) throw new Error("The connection broke off before the node was done.");
      if (!heard.failed && !heard.offered && !heard.settled) now.textContent = heard.name ? `${heard.name} was added.` : "";
    } catch (error) {
      if (running.signal.aborted) now.textContent = heard.name ? `Stopped. ${heard.name} was added, and stays.` : "Stopped.";
      else told.append(failure(error));
    }
    running = null;
    bar.hidden = true;
    busy(false);
  }

  function on(event, heard) {
    if (event.event === "models") {
      heard.offered = true;
      offer(event.models ?? []);
    } else if (event.event === "added") {
      heard.name = event.name;
      now.textContent = `${event.name} was added.${probe.checked ? " Preparing to probe it…" : ""}`;
      onAdded();
    } else if (event.event === "probing") {
      bar.hidden = false;
      [bar.max, bar.value] = [event.of, event.asked];
      bar.textContent = `${event.asked} of ${event.of}`;
      if (event.asked % 8 === 1 || event.asked === 0) now.textContent = `Probing ${heard.name ?? ""}: up to ${count(event.of)} questions…`;
      bar.setAttribute("aria-valuetext", `${event.asked} of ${event.of} answered`);
    } else if (event.event === "probed") {
      heard.settled = true;
      now.textContent = `${heard.name ?? event.result.name} was added and probed.`;
      told.append(result(event.result));
      onAdded();
    } else if (event.event === "not_probed") {
      heard.settled = true;
      now.textContent = `${heard.name ?? "It"} was added, and not probed: ${event.why}`;
    } else if (event.event === "error") {
      heard.failed = true;
      if (!heard.offered) {
        now.textContent = heard.name ? `${heard.name} was added.` : "";
        told.append(failure(event));
      }
    }
  }

  /** The server has several models: one of them is to be chosen. */
  function offer(models) {
    now.textContent = `${plural(models.length, "model")} can be asked there. Which one?`;
    const pick = (model) => {
      inputs.get("model").value = model;
      told.replaceChildren();
      begin();
    };
    const list = models.map((model) => h("li", {}, h("button", { type: "button", class: "small", dir: "auto", onclick: () => pick(model) }, model)));
    told.append(h("ul", { class: "offered", "aria-label": "Models at this address" }, list));
    setTimeout(() => told.querySelector("button")?.focus());
  }

  const view = {
    element,
    opener: null,
    stop: () => running?.abort(),
    toggle() {
      element.hidden = !element.hidden;
      view.opener?.setAttribute("aria-expanded", String(!element.hidden));
      (element.hidden ? view.opener : inputs.get("url"))?.focus();
      if (element.hidden && running) announce("Adding goes on.");
    },
  };
  return view;
}

function input({ name, type = "text", required = false, placeholder = "", pattern }) {
  const one = h("input", { id: `add-${name}`, name, type, required, placeholder, autocomplete: "off", spellcheck: false });
  if (type === "number") Object.assign(one, { min: 0, step: "any" });
  if (pattern) one.pattern = pattern;
  return one;
}

function labelled({ name, label, hint, wide }, field) {
  if (hint) field.setAttribute("aria-describedby", `add-${name}-hint`);
  return h("div", { class: wide ? "wide" : "" }, h("label", { htmlFor: field.id }, label), field, hint && h("span", { class: "note", id: `add-${name}-hint` }, hint));
}

// --- what came of it -------------------------------------------------------------------------------

/** One element of `probed`, as `manyminds experts add --json` has it, in words. */
function result(found) {
  const asked = found.more ? `${plural(found.probes, "probe")} and ${count(found.more)} more` : plural(found.probes, "probe");
  const failed = found.failed ? `, ${plural(found.failed, "call")} failed` : "";
  const words = [`${asked} for ${usd(found.cost_usd)}${failed}.`, found.ended === "enough" ? "" : `Then the ${found.ended} was spent.`];
  if (found.changed === false) words.push("It is as it was when it was learnt from: what was learnt of it holds.");
  return h("div", { class: "probed" }, h("p", {}, words.filter(Boolean).join(" ")), (found.sorts ?? []).map(sort));
}

const points = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(1)} points`;

function verdict({ what, accuracy, gain, gain_low: low }) {
  const right = `About ${Math.round(100 * accuracy)}% right.`;
  return {
    keep: `${right} Not taken in, since it is not surely a gain: ${points(gain)} expected, ${points(low)} at least.`,
    lead: `${right} Taken in, and asked before all others: ${points(gain)} expected.`,
    join: `${right} Taken in: it votes, ${points(gain)} expected.`,
    all: `${right} Taken in with others that had been waiting: ${points(gain)} expected.`,
  }[what] ?? right;
}

function sort(of) {
  const rows = (of.frontier ?? []).map(({ policy, before, after }) =>
    h("tr", {}, h("th", { scope: "row" }, policy), h("td", { class: "num" }, both(before, after, "accuracy", exact)), h("td", { class: "num" }, both(before, after, "cost_usd_per_1k", usd)), h("td", { dir: "auto" }, listed(after?.asks ?? []))));
  const heads = ["Policy", "Right", "$ per 1,000", "Asks"].map((text, i) => h("th", { scope: "col", class: i === 1 || i === 2 ? "num" : "" }, text));
  const shown = of.what !== "keep" && rows.length > 0;
  const kinds = listed(of.kinds ?? []);
  return h("div", {}, h("p", {}, h("strong", {}, `${kinds}: `), verdict(of)),
    shown && h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `The network before and after, ${kinds}` }, h("table", {}, h("caption", {}, "The network before → after"), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows))));
}

/** Before and after, once where they are the same. */
function both(before, after, key, format) {
  const [was, is] = [before, after].map((point) => (point?.[key] === null || point?.[key] === undefined ? "?" : format(point[key])));
  return was === is ? was : `${was} → ${is}`;
}

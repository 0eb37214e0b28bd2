/** Elements and figures: how the page makes the one and writes the other. Knows nothing of the node. */

/** An element: `h("td", { class: "num", onclick: f }, "text", child, null)`. Text is always text, never HTML.
 * A property that the element has is set, anything else becomes an attribute; null and false are left out.
 * @returns {HTMLElement}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Says something to screen readers, once, when there is time. */
export function announce(text) {
  const region = document.getElementById("announce");
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}

/** A share as a bar with its figure beside it; `label` names it for those who do not see it. */
export function meter(share, label) {
  const bar = h("span", { class: "meter", "aria-hidden": "true" }, h("span"));
  bar.style.setProperty("--share", Math.max(0, Math.min(1, share ?? 0)));
  return h("span", { class: "metered", title: label }, bar, h("span", { class: "num" }, percent(share)));
}

/** Short words on a coloured ground; `tone`: ok, warn, bad, busy or nothing. */
export const badge = (text, tone = "") => h("span", { class: `badge ${tone}` }, text);

/** A message of the node, where something went wrong. */
export const failure = (error) => h("p", { class: "failure", role: "alert" }, error.message ?? String(error));

// --- figures; what is not known is a dash ----------------------------------------------------------

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** 0.734 -> "73%" */
export const percent = (share) => (known(share) ? `${Math.round(share * 100)}%` : "–");

/** US dollars, to two digits that count: "$0", "$0.00042", "$12.30". */
export function usd(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size < 5e-10) return "$0";
  if (size >= 0.995) return `${sign}$${size.toFixed(2)}`;
  return `${sign}$${size.toFixed(Math.min(9, 1 - Math.floor(Math.log10(size))))}`;
}

/** "80 ms", "1.42 s", "2 min 5 s" */
export function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** "1,234" */
export const count = (n) => (known(n) ? n.toLocaleString("en-US") : "–");

/** "3 experts", "1 expert" */
export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

const hues = new Map();

/** The colour of a source, as a class, `hue-0` … `hue-7`: the same on all of the page, in the order they are met. */
export function hue(name) {
  if (!hues.has(name)) hues.set(name, `hue-${hues.size % 8}`);
  return hues.get(name);
}

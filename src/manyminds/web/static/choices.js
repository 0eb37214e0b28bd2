/** Whom the reader wants on the panel: include, exclude, weigh. One set of choices, shown wherever experts are. */

import { h, plural } from "./ui.js";

const SHOWN = 40; // experts in the list at once: the filter finds the others
const MAX_WEIGHT = 4;

/** What was chosen, by expert. Tells `changed` whenever that is something else. */
export class Choices extends EventTarget {
  #wish = new Map(); // name -> "include" | "exclude"
  #weight = new Map(); // name -> 0…4, where it is not 1

  wish = (name) => this.#wish.get(name) ?? "";
  weight = (name) => this.#weight.get(name) ?? 1;

  /** Again what it was: neither. */
  toggle(name, wish) {
    if (this.wish(name) === wish) this.#wish.delete(name);
    else this.#wish.set(name, wish);
    this.#tell(name);
  }

  weigh(name, weight) {
    if (weight === 1) this.#weight.delete(name);
    else this.#weight.set(name, weight);
    this.#tell(name);
  }

  clear() {
    this.#wish.clear();
    this.#weight.clear();
    this.#tell(null);
  }

  /** As fields of a request's `manyminds`; what was not chosen is left out. */
  get request() {
    const named = (wish) => [...this.#wish].filter(([, other]) => other === wish).map(([name]) => name);
    const [include, exclude] = [named("include"), named("exclude")];
    const weights = Object.fromEntries(this.#weight);
    return {
      ...(include.length && { include }),
      ...(exclude.length && { exclude }),
      ...(this.#weight.size && { weights }),
    };
  }

  /** In words; empty where nothing was chosen. */
  get words() {
    const { include, exclude, weights } = this.request;
    const parts = [];
    if (include) parts.push(`only ${listed(include)}`);
    if (exclude) parts.push(`without ${listed(exclude)}`);
    if (weights) parts.push(listed(Object.entries(weights).map(([name, weight]) => `${name} × ${weight}`)));
    return parts.join("; ");
  }

  #tell(name) {
    this.dispatchEvent(new CustomEvent("changed", { detail: { name } }));
  }
}

const listed = (names) => (names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", "));

/** Buttons and a slider for one expert, true to `choices` until `signal` aborts. */
export function controls(name, choices, signal) {
  const toggle = (wish, text) =>
    h("button", { type: "button", class: "small", "aria-label": `${text} ${name}`, onclick: () => choices.toggle(name, wish) }, text);
  const include = toggle("include", "Include");
  const exclude = toggle("exclude", "Exclude");
  const shown = h("output", { class: "num" });
  const slider = h("input", { type: "range", min: 0, max: MAX_WEIGHT, step: 0.25, "aria-label": `Weight of ${name}` });
  slider.addEventListener("input", () => choices.weigh(name, Number(slider.value)));
  const draw = () => {
    include.setAttribute("aria-pressed", choices.wish(name) === "include");
    exclude.setAttribute("aria-pressed", choices.wish(name) === "exclude");
    slider.value = choices.weight(name);
    shown.textContent = `× ${choices.weight(name)}`;
  };
  draw();
  const changed = ({ detail }) => (detail.name === null || detail.name === name) && draw();
  choices.addEventListener("changed", changed, { signal });
  return h("div", { class: "controls" }, include, exclude, h("span", { class: "slider" }, slider, shown));
}

/** All experts with their controls, behind a line that says what is chosen. `load()` -> cards. */
export function chooser(choices, load) {
  const words = h("span", { class: "chosen" });
  const clear = h("button", { type: "button", class: "quiet small", hidden: true, onclick: () => choices.clear() }, "Clear");
  const filter = h("input", { type: "search", placeholder: "Filter by name, source or skill", "aria-label": "Filter experts" });
  const list = h("ul", { class: "choose" });
  const note = h("p", { class: "note" });
  const why = h("p", { class: "note" }, "Once anybody is included, nobody else is asked. Weight 0 is never asked; 2 counts twice.");
  const details = h("details", { class: "chooser" }, h("summary", {}, "Experts", words), why, filter, list, note);
  let cards = [];
  let drawn = new AbortController();

  const fill = () => {
    drawn.abort();
    drawn = new AbortController();
    const sought = filter.value.trim().toLowerCase();
    const has = (card) => [card.name, card.source, card.model, ...(card.skills ?? [])].join(" ").toLowerCase().includes(sought);
    const found = cards.filter(has);
    const rows = found.slice(0, SHOWN).map((card) =>
      h("li", {}, h("span", { class: "who" }, h("b", {}, card.name), h("span", { class: "note" }, card.source)), controls(card.name, choices, drawn.signal)),
    );
    list.replaceChildren(...rows);
    const hidden = found.length - rows.length;
    note.textContent = hidden > 0 ? `And ${plural(hidden, "more expert")}: filter to find them.` : found.length ? "" : "Nobody is like that.";
  };
  const open = async () => {
    if (!details.open) return;
    try {
      cards = await load();
      fill();
    } catch (error) {
      note.textContent = error.message;
    }
  };
  const say = () => {
    const chosen = choices.words;
    words.textContent = chosen ? `: ${chosen}` : ": as the policy chooses";
    clear.hidden = !chosen;
  };
  filter.addEventListener("input", fill);
  details.addEventListener("toggle", open);
  choices.addEventListener("changed", say);
  say();
  return h("div", { class: "choosing" }, details, clear);
}

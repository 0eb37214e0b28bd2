/** The panel as it happens: a lane for each call, with what the expert writes and how it goes. */

import { controls } from "./choices.js";
import { badge, duration, h, hue, meter, percent, plural, usd } from "./ui.js";

const SHOWN = 12; // lanes at once; the rest behind a button
const CLIPPED = 160; // characters of a draft that always fit

/** What a lane's status says, and in which tone. */
const STATES = {
  planned: ["in reserve", ""],
  asked: ["asked", "busy"],
  writing: ["first words", "busy"],
  ok: ["done", "ok"],
  failed: ["failed", "bad"],
  cut: ["cut off", "bad"],
  late: ["late", "warn"],
  cancelled: ["cancelled", "warn"],
  declined: ["declined", "warn"],
  stopped: ["stopped", "warn"],
  idle: ["not needed", ""],
};

/** One call of one expert. */
class Lane {
  #chip = badge("");
  #beside = badge("", "warn");
  #draft = h("p", { class: "draft" });
  #text = new Text();
  #all = h("button", { type: "button", class: "quiet small", hidden: true, "aria-expanded": "false" }, "Show all");
  #figures = h("p", { class: "note figures-line" });
  #weight = h("span", { class: "weight" });
  #took = h("span", { class: "note" });
  state = "planned";
  weight = 0;

  constructor({ expert, source, stage = 0, method = "generate", probability = null, samples = 1 }, choices, signal) {
    Object.assign(this, { expert, source, stage, method, probability, samples, call: null });
    this.#draft.append(this.#text);
    this.#all.addEventListener("click", () => this.#unfold());
    this.#beside.hidden = true;
    const what = [method === "score" ? "rates the options" : method === "fuse" ? "fuses" : null, stage > 0 ? `stage ${stage + 1}` : null, samples > 1 ? `${samples} samples` : null];
    this.element = h(
      "li",
      { class: `lane ${hue(source || expert)}` },
      h(
        "div",
        { class: "lane-head" },
        h("span", { class: "who" }, h("span", { class: "swatch", "aria-hidden": "true" }), h("b", {}, expert), source && source !== expert ? h("span", { class: "note" }, source) : null),
        ...what.filter(Boolean).map((word) => badge(word)),
        this.#beside,
        this.#chip,
      ),
      this.#draft,
      this.#all,
      h("div", { class: "lane-foot" }, this.#weight, this.#took, this.#figures),
      controls(expert, choices, signal),
    );
    this.#show("planned");
    this.#say([this.#expected]);
  }

  get #expected() {
    return this.probability === null ? null : `expected ${percent(this.probability)}`;
  }

  began({ call, hedges }) {
    this.call = call;
    if (hedges) this.#besides(hedges);
    this.#show("asked");
  }

  #besides(expert) {
    this.#beside.textContent = `beside ${expert}`;
    this.#beside.title = `${expert} was slow to start: this one was asked beside it`;
    this.#beside.hidden = false;
  }

  wrote(piece) {
    if (this.state === "asked") this.#show("writing");
    this.#text.appendData(piece);
  }

  ended(event) {
    this.#show(event.declined ? "declined" : event.status, event.lost ? "cancelled: the other was first" : null);
    this.#tell(event);
  }

  /** What the report says at last; also of calls that were not watched. */
  settle(entry) {
    if (!this.#text.data && entry.answer) this.#text.data = entry.answer;
    const short = entry.status === "ok" && entry.answer && entry.answer.length <= 40;
    const said = short && !this.#text.data.toLowerCase().includes(entry.answer.toLowerCase());
    this.#show(entry.declined ? "declined" : entry.status, this.state === "cancelled" ? this.#chip.textContent : null);
    this.weight = entry.weight;
    this.#weight.replaceChildren(h("span", { class: "note" }, "weight"), meter(entry.weight, `Weight of ${entry.expert}`));
    this.#tell(entry, said ? entry.answer : null);
  }

  /** The answer is over, and nobody said how this call ended. */
  close(stopped) {
    if (["asked", "writing"].includes(this.state)) this.#show("stopped");
    else if (this.state === "planned") this.#show(stopped ? "stopped" : "idle");
  }

  #tell({ error, ttft_s, seconds, cost_usd, correct_probability, support }, says = null) {
    const right = correct_probability === undefined || correct_probability === null ? null : `right ${percent(correct_probability)}`;
    this.#say([
      says ? `says ${says}` : null,
      this.#expected,
      right,
      support === undefined || support === null ? null : `supported ${percent(support)}`,
      ttft_s === null || ttft_s === undefined ? null : `first word after ${duration(ttft_s)}`,
    ]);
    this.#took.textContent = `${duration(seconds)} · ${usd(cost_usd)}`;
    if (error && !this.#text.data) {
      this.#text.data = error;
      this.#draft.classList.add("error");
    }
  }

  #say(parts) {
    this.#figures.textContent = parts.filter(Boolean).join(" · ");
  }

  #show(state, words = null) {
    const [name, tone] = STATES[state] ?? [state, ""];
    this.state = state;
    this.#chip.className = `badge ${tone}`;
    this.#chip.textContent = words ?? name;
    this.element.dataset.state = state;
    this.element.classList.toggle("working", state === "asked" || state === "writing");
    const long = this.#text.data.length > CLIPPED || this.#text.data.split("\n").length > 3;
    this.#all.hidden = !long || state === "writing";
    this.#all.setAttribute("aria-label", `Show all that ${this.expert} wrote`);
  }

  #unfold() {
    const open = this.element.classList.toggle("open");
    this.#all.textContent = open ? "Show less" : "Show all";
    this.#all.setAttribute("aria-expanded", open);
    this.#all.setAttribute("aria-label", open ? `Show less of what ${this.expert} wrote` : `Show all that ${this.expert} wrote`);
  }
}

/** All lanes of one answer. */
export class Lanes {
  #list = h("ol", { class: "lanes", "aria-label": "Experts asked" });
  #more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.#open() });
  #lanes = [];
  #byCall = new Map();
  #all = false;
  #gone = new AbortController();

  /** @param {import("./choices.js").Choices} choices */
  constructor(choices) {
    this.choices = choices;
    this.element = h("div", {}, this.#list, this.#more);
  }

  get size() {
    return this.#lanes.length;
  }

  /** An event of the panel; see docs/api.md. */
  on(event) {
    if (event.event === "routed") event.calls.forEach((call) => this.#add(call));
    else if (event.event === "began") this.#began(event);
    else if (event.event === "wrote") this.#byCall.get(event.call)?.wrote(event.text);
    else if (event.event === "ended") this.#byCall.get(event.call)?.ended(event);
  }

  #began(event) {
    const planned = this.#lanes.find((lane) => lane.call === null && same(lane, event));
    const lane = planned ?? this.#add({ ...event, probability: this.#lanes.find((other) => same(other, event))?.probability });
    lane.began(event);
    this.#byCall.set(event.call, lane);
  }

  /** @param {object[]} panel of the report: an entry for each call */
  settle(panel) {
    const open = new Set(this.#lanes);
    for (const entry of panel) {
      const free = [...open];
      const lane = free.find((lane) => lane.call !== null && same(lane, entry)) ?? free.find((lane) => same(lane, entry)) ?? this.#add(entry);
      open.delete(lane);
      lane.settle(entry);
    }
    this.close(false);
    if (this.#lanes.length > SHOWN) this.#sort();
  }

  /** No more comes. */
  close(stopped) {
    for (const lane of this.#lanes) lane.close(stopped);
  }

  #add(call) {
    const lane = new Lane(call, this.choices, this.#gone.signal);
    this.#lanes.push(lane);
    lane.element.hidden = !this.#all && this.#lanes.length > SHOWN;
    this.#list.append(lane.element);
    this.#count();
    return lane;
  }

  /** Of many, those first that counted most. */
  #sort() {
    const focused = document.activeElement;
    this.#lanes.sort((one, other) => other.weight - one.weight);
    this.#list.append(...this.#lanes.map((lane) => lane.element));
    this.#lanes.forEach((lane, n) => (lane.element.hidden = !this.#all && n >= SHOWN));
    if (this.#list.contains(focused)) focused.focus();
  }

  #count() {
    this.#more.hidden = this.#all || this.#lanes.length <= SHOWN;
    this.#more.textContent = `Show the other ${plural(this.#lanes.length - SHOWN, "expert")}`;
  }

  #open() {
    this.#all = true;
    const first = this.#lanes[SHOWN];
    for (const lane of this.#lanes) lane.element.hidden = false;
    this.#count();
    first.element.querySelector("button:not([hidden])")?.focus();
  }

  /** The lanes are shown no more. */
  drop() {
    this.#gone.abort();
  }
}

const same = (lane, call) => lane.expert === call.expert && lane.stage === (call.stage ?? 0) && lane.method === (call.method ?? lane.method);

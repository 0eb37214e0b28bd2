/** One question, asked with several policies at once: their answers side by side. */

import { chat } from "./api.js";
import { Prose } from "./prose.js";
import { announce, badge, duration, failure, h, percent, usd } from "./ui.js";

export const COMPARED = ["auto", "max", "cheap", "fast"];

/** Like a Turn, of which one column may become the answer that the conversation goes on with. */
export class Comparison {
  #abort = new AbortController();
  #columns;

  /** @param {{question: string, history: object[], wishes: object}} asked @param {string[]} policies */
  constructor(asked, policies = COMPARED) {
    this.asked = asked;
    this.answer = null;
    this.#columns = policies.map((policy) => new Column(policy, this));
    this.element = h(
      "section",
      { class: "turn" },
      h("div", { class: "question" }, h("h2", {}, asked.question), badge("policies compared")),
      h("ul", { class: "compare", "aria-label": "Policies side by side" }, this.#columns.map((column) => column.element)),
    );
  }

  stop() {
    this.#abort.abort();
  }

  drop() {
    this.stop();
  }

  get messages() {
    return this.answer === null ? [] : [{ role: "user", content: this.asked.question }, { role: "assistant", content: this.answer }];
  }

  /** Asks all; never raises. Answers kept from before would compare nothing, so none is used. */
  async run() {
    const { question, history, wishes } = this.asked;
    const asked = { messages: [...history, { role: "user", content: question }], manyminds: { cache: "off", ...wishes } };
    await Promise.all(this.#columns.map((column) => column.run(asked, this.#abort.signal)));
    const done = this.#columns.filter((column) => column.report);
    mark(done, (column) => column.report.cost_usd, "cheapest");
    mark(done, (column) => column.seconds, "fastest");
    this.keep(this.#columns.find((column) => column.report) ?? null);
    announce(`${done.length} of ${this.#columns.length} policies answered. ${done.map((column) => `${column.policy}: ${column.spoken}`).join(" ")}`);
  }

  /** The conversation goes on with this column's answer. */
  keep(kept) {
    this.answer = kept?.text ?? null;
    for (const column of this.#columns) column.kept(column === kept);
  }
}

/** A badge for the least of all, where there is one. */
function mark(columns, value, word) {
  if (columns.length < 2) return;
  const least = Math.min(...columns.map(value));
  const found = columns.filter((column) => value(column) === least);
  if (found.length === 1) found[0].mark(word);
}

class Column {
  #prose = new Prose();
  #marks = h("span", { class: "row" });
  #state = h("p", { class: "note" }, "Asking…");
  #figures = h("dl", { class: "compare-figures" });
  #keep;
  report = null;
  seconds = null;

  constructor(policy, comparison) {
    this.policy = policy;
    this.#keep = h("button", { type: "button", class: "small", hidden: true, "aria-label": `Continue with the answer of ${policy}`, onclick: () => comparison.keep(this) }, "Continue with this");
    this.element = h(
      "li",
      { class: "card column" },
      h("div", { class: "row apart" }, h("h3", {}, policy), this.#marks),
      h("div", { class: "column-answer" }, this.#prose.element, this.#state),
      this.#figures,
      h("div", {}, this.#keep),
    );
  }

  get text() {
    return this.#prose.text;
  }

  get spoken() {
    return `${this.text.slice(0, 200)}, ${duration(this.seconds)}, ${usd(this.report.cost_usd)}.`;
  }

  mark(word) {
    this.#marks.append(badge(word, "ok"));
  }

  kept(yes) {
    this.#keep.hidden = this.report === null;
    this.#keep.setAttribute("aria-pressed", yes);
  }

  async run(asked, signal) {
    const began = performance.now();
    let report = null;
    const onText = (piece) => {
      this.#state.hidden = true;
      this.#prose.add(piece);
    };
    try {
      await chat({ ...asked, model: this.policy }, { signal, onText, onReport: (said) => (report = said) });
      this.seconds = (performance.now() - began) / 1000;
      this.report = report;
      this.#state.hidden = true;
    } catch (error) {
      this.#state.hidden = false;
      this.#state.replaceChildren(signal.aborted ? "Stopped." : failure(error));
    }
    await this.#prose.finish();
    if (this.report) this.#tell();
  }

  #tell() {
    const { panel, cost_usd, saved_usd, agreement } = this.report;
    const rows = [
      ["Panel", panel ? String(panel.length) : "–"],
      ["Time", duration(this.seconds)],
      ["Cost", usd(cost_usd)],
      ["Saved", usd(saved_usd)],
      ["Agreement", percent(agreement)],
    ];
    this.#figures.append(...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "num" }, value))));
  }
}

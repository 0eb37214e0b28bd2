/** One question and what comes of it: the answer, and beside it the panel. */

import { chat } from "./api.js";
import { Lanes } from "./lanes.js";
import { outcome } from "./outcome.js";
import { Prose } from "./prose.js";
import { announce, badge, duration, failure, h, percent, plural, usd } from "./ui.js";

const SPOKEN = 1500; // characters of an answer that a screen reader is given at once

/** A question that is asked of the node; `run()` once. */
export class Turn {
  #prose = new Prose();
  #plan = h("p", { class: "note plan" }, "Choosing whom to ask…");
  #body = h("div", { class: "body" });
  #chips = h("span", { class: "row" });
  #again = h("button", { type: "button", class: "small", hidden: true, dataset: { again: "" } }, "Ask again");
  #adjust = h("button", { type: "button", class: "small", "aria-pressed": "false", hidden: true }, "Adjust");
  #aside;
  #abort = new AbortController();
  #best = null;
  #frame = 0;
  #waiting = []; // events since the page was last drawn

  /**
   * @param {{question: string, history: object[], model: string, wishes: object}} asked
   * @param {import("./choices.js").Choices} choices
   * @param {(turn: Turn) => void} onAgain
   */
  constructor(asked, choices, onAgain) {
    this.asked = asked;
    this.answer = null; // the text, once it is whole
    this.lanes = new Lanes(choices);
    this.#again.addEventListener("click", () => onAgain(this));
    this.#adjust.addEventListener("click", () => this.#adjusting());
    this.#aside = h(
      "section",
      { class: "panel", "aria-label": "Panel" },
      h("div", { class: "row apart panel-head" }, h("h3", {}, "Panel"), h("span", { class: "row" }, this.#adjust, this.#again)),
      this.#plan,
      this.lanes.element,
    );
    this.#body.append(this.#prose.element, h("p", { class: "note waiting" }, "Thinking…"));
    this.element = h(
      "section",
      { class: "turn" },
      h("div", { class: "question" }, h("h2", {}, asked.question), asked.again ? badge(`again: ${asked.again}`) : null),
      h(
        "div",
        { class: "split" },
        h("section", { class: "answer card", "aria-label": "Answer", "aria-busy": "true" }, h("div", { class: "row answer-head" }, this.#chips), this.#body),
        this.#aside,
      ),
    );
  }

  stop() {
    this.#abort.abort();
  }

  /** What a later question in the same conversation is told of this one. */
  get messages() {
    const question = { role: "user", content: this.asked.question };
    return this.answer === null ? [] : [question, { role: "assistant", content: this.answer }];
  }

  /** Asks, and shows what comes; never raises. */
  async run() {
    const { question, history, model, wishes } = this.asked;
    const messages = [...history, { role: "user", content: question }];
    const began = performance.now();
    let report = null;
    try {
      await chat(
        { model, messages, manyminds: { watch: true, explain: true, ...wishes } },
        {
          signal: this.#abort.signal,
          onText: (piece) => this.#write(piece),
          onEvent: (event) => this.#watch(event),
          onReport: (said) => (report = said),
        },
      );
      this.#flush();
      this.answer = this.#prose.text;
      this.#over(report, (performance.now() - began) / 1000);
    } catch (error) {
      this.#flush();
      this.#broken(error);
    }
    await this.#finish(report);
  }

  #write(piece) {
    this.#body.querySelector(".waiting")?.remove();
    this.#prose.add(piece);
  }

  /** Many events may come between two frames: they are drawn together. */
  #watch(event) {
    this.#waiting.push(event);
    this.#frame ||= setTimeout(() => this.#flush(), 40); // not a frame's callback: a hidden tab has none
  }

  #flush() {
    clearTimeout(this.#frame);
    this.#frame = 0;
    for (const event of this.#waiting.splice(0)) {
      if (event.event === "routed") this.#routed(event);
      this.lanes.on(event);
    }
  }

  #routed(event) {
    this.#best = event.best_single;
    this.#chips.replaceChildren(badge(event.policy), badge(event.strategy), ...(event.section ? [badge(event.section)] : []));
    const expected = [
      `${plural(event.calls.length, "expert")} chosen`,
      `expected ${percent(event.expected_accuracy)} right`,
      usd(event.expected_cost_usd),
      duration(event.expected_latency_s),
      event.best_single ? `best single: ${event.best_single}` : null,
    ];
    this.#plan.textContent = expected.filter(Boolean).join(" · ");
    if (event.reserve?.length) this.#plan.textContent += ` · in reserve: ${event.reserve.slice(0, 3).join(", ")}`;
    this.#adjust.hidden = false;
  }

  #over(report, seconds) {
    if (!report) return;
    this.#chips.replaceChildren(...[report.policy, report.strategy].filter(Boolean).map((word) => badge(word)));
    if (report.cache === "hit") this.#chips.append(badge("kept from before"));
    if (report.privacy) this.#plan.textContent = "A private answer shows no panel.";
    else {
      this.lanes.settle(report.panel ?? []);
      const done = (report.panel ?? []).filter((entry) => entry.status === "ok").length;
      const looked = report.search?.considered ? ` · ${plural(report.search.considered, "expert")} considered` : "";
      const best = this.#best ? ` · best single: ${this.#best}` : "";
      this.#plan.textContent = `${done} of ${plural(report.panel?.length ?? 0, "call")} answered${looked}${best}`;
    }
    this.#adjust.hidden = Boolean(report.privacy) || this.lanes.size === 0;
    this.#body.append(outcome(report, { seconds, best: this.#best }));
  }

  #broken(error) {
    const stopped = this.#abort.signal.aborted;
    this.lanes.close(stopped);
    if (this.lanes.size === 0) this.#plan.textContent = "Nobody was asked.";
    this.#body.append(stopped ? h("p", { class: "note" }, "Stopped: this answer is not whole.") : failure(error));
  }

  async #finish(report) {
    this.#body.querySelector(".waiting")?.remove();
    this.#again.hidden = false;
    await this.#prose.finish();
    this.element.querySelector(".answer").setAttribute("aria-busy", "false");
    if (this.answer === null) return;
    const agreed = report?.agreement === null || report?.agreement === undefined ? "" : ` Agreement ${percent(report.agreement)}.`;
    announce(`Answer: ${this.#prose.element.textContent.slice(0, SPOKEN)}${agreed}`);
  }

  #adjusting() {
    const on = this.#aside.classList.toggle("adjusting");
    this.#adjust.setAttribute("aria-pressed", on);
  }

  drop() {
    this.stop();
    this.lanes.drop();
  }
}

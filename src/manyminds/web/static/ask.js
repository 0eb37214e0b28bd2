/** Ask: a conversation with the network, and beside each answer the panel at work. */

import { get, live } from "./api.js";
import { Choices, chooser } from "./choices.js";
import { Comparison } from "./compare.js";
import { Turn } from "./turn.js";
import { failure, h } from "./ui.js";

export const title = "Ask";

const POLICIES = ["auto", "max", "cheap", "fast", "private"];
const EXAMPLES = [
  "What is the capital of Australia?",
  "A farmer has 17 sheep; all but 9 run away. How many are left?",
  "Explain in two sentences why the sky is blue.",
];

let conversation = null; // kept while other views are shown

/** Shows the conversation, which goes on while other views are shown. */
export function mount(root) {
  conversation ??= new Conversation();
  root.append(conversation.element);
  conversation.refresh();
  return () => conversation.element.remove();
}

class Conversation {
  #turns = [];
  #choices = new Choices();
  #running = null;
  #cards = null;
  #box = h("textarea", { id: "question", rows: 1, placeholder: "Ask anything", "aria-describedby": "hint" });
  #policy = h("select", { id: "policy" });
  #send = h("button", { type: "submit", class: "primary" }, "Ask");
  #stop = h("button", { type: "button", hidden: true }, "Stop");
  #compare = h("button", { type: "button" }, "Compare policies");
  #anew = h("button", { type: "button", class: "quiet", hidden: true }, "New conversation");
  #list = h("div", { class: "turns" });
  #trouble = h("div");
  #welcome = this.#greeting();

  constructor() {
    const form = h(
      "form",
      { class: "composer card" },
      h("label", { class: "hidden", for: "question" }, "Your question"),
      this.#box,
      h(
        "div",
        { class: "row" },
        h("label", { class: "row policy" }, h("span", { class: "note" }, "Policy"), this.#policy),
        chooser(this.#choices, () => this.#experts()),
        h("span", { class: "row push" }, this.#anew, this.#compare, this.#stop, this.#send),
      ),
      h("p", { class: "hidden", id: "hint" }, "Enter asks, Shift+Enter begins a line."),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask(this.#box.value.trim());
    });
    this.#box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.#stop.addEventListener("click", () => this.#running?.stop());
    this.#compare.addEventListener("click", () => this.#side());
    this.#anew.addEventListener("click", () => this.#clear());
    live.addEventListener("up", ({ detail }) => detail.again && this.refresh());
    live.addEventListener("changed", () => (this.#cards = null));
    this.element = h("div", { class: "ask" }, h("h1", { class: "hidden" }, "Ask"), this.#welcome, this.#list, this.#trouble, form);
    this.#offer(POLICIES.map((id) => ({ id, owned_by: "manyminds" })));
  }

  #greeting() {
    const example = (text) => h("li", {}, h("button", { type: "button", onclick: () => this.#ask(text) }, text));
    return h(
      "div",
      { class: "welcome" },
      h("p", { class: "headline" }, "Many minds, one answer"),
      h("p", { class: "note" }, "Ask, and watch who is asked, what each of them says, and who the answer owes what."),
      h("ul", { "aria-label": "Examples" }, EXAMPLES.map(example)),
    );
  }

  /** Whom one can ask, as the node says now. */
  async refresh() {
    try {
      this.#offer((await get("/v1/models")).data);
      this.#trouble.replaceChildren();
    } catch (error) {
      if (error.status) this.#trouble.replaceChildren(failure(error)); // else the banner says it
    }
  }

  #offer(models) {
    const chosen = this.#policy.value || "auto";
    const option = ({ id }) => h("option", { value: id }, id);
    const policies = models.filter(({ id }) => POLICIES.includes(id));
    const others = models.filter(({ id }) => !POLICIES.includes(id));
    this.#policy.replaceChildren(...policies.map(option));
    if (others.length) this.#policy.append(h("optgroup", { label: "One by name" }, others.map(option)));
    this.#policy.value = models.some(({ id }) => id === chosen) ? chosen : policies[0]?.id;
  }

  async #experts() {
    return (this.#cards ??= (await get("/v1/experts")).data);
  }

  get #history() {
    return this.#turns.flatMap((turn) => turn.messages);
  }

  #ask(question) {
    if (!question || this.#running) return;
    this.#box.value = "";
    this.#begin({ question, history: this.#history, model: this.#policy.value, wishes: this.#choices.request });
  }

  /** The same question with the choices as they are now; the conversation goes on from the newer answer. */
  #again(turn) {
    if (this.#running) return;
    const wishes = { ...this.#choices.request, cache: "refresh" };
    const again = this.#choices.words || "as the policy chooses";
    turn.answer = null;
    this.#begin({ ...turn.asked, model: this.#policy.value, wishes, again });
  }

  #begin(asked) {
    this.#run(new Turn(asked, this.#choices, (turn) => this.#again(turn)));
  }

  /** What is in the box, else the last question, with each policy. */
  #side() {
    if (this.#running) return;
    const last = this.#turns.at(-1)?.asked;
    const typed = this.#box.value.trim();
    if (!typed && !last) return this.#box.focus();
    this.#box.value = "";
    const asked = typed ? { question: typed, history: this.#history } : { question: last.question, history: last.history };
    if (!typed) this.#turns.at(-1).answer = null;
    this.#run(new Comparison({ ...asked, wishes: this.#choices.request }));
  }

  async #run(turn) {
    this.#welcome.hidden = true;
    this.#turns.push(turn);
    this.#list.append(turn.element);
    this.#busy(turn);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    turn.element.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
    await turn.run();
    this.#busy(null);
  }

  #busy(turn) {
    const focused = document.activeElement;
    this.#running = turn;
    this.#send.hidden = Boolean(turn);
    this.#stop.hidden = !turn;
    this.#compare.disabled = Boolean(turn);
    this.#anew.hidden = Boolean(turn) || this.#turns.length === 0;
    for (const button of this.#list.querySelectorAll("[data-again]")) button.disabled = Boolean(turn);
    if (focused === this.#send || focused === this.#stop || focused === this.#compare) this.#box.focus();
  }

  #clear() {
    for (const turn of this.#turns.splice(0)) turn.drop();
    this.#list.replaceChildren();
    this.#welcome.hidden = false;
    this.#anew.hidden = true;
    this.#box.focus();
  }
}

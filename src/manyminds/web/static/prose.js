/** Model output while it comes: text at once, as sanitised Markdown a little later. */

import { html } from "./api.js";
import { h } from "./ui.js";

const AGAIN_MS = 700; // between two renderings while it comes

/** A text that grows. What is not rendered yet stands behind what is, as text. */
export class Prose {
  #rendered = h("div");
  #tail = h("span", { class: "tail" });
  #upTo = 0; // characters of the text that are rendered
  #busy = false;
  #timer = 0;
  text = "";
  element = h("div", { class: "prose" }, this.#rendered, this.#tail);

  /** @param {string} piece */
  add(piece) {
    this.text += piece;
    this.#tail.append(piece);
    this.#timer ||= setTimeout(() => this.#render(), AGAIN_MS);
  }

  /** Once no more comes: all of it is Markdown, or stays text where the node cannot say. */
  async finish() {
    clearTimeout(this.#timer);
    this.#timer = -1;
    while (this.#busy) await new Promise((resolve) => setTimeout(resolve, 20));
    if (this.text) await this.#render();
    this.element.classList.add("whole");
  }

  async #render() {
    if (this.#busy) return;
    this.#busy = true;
    const { text } = this;
    try {
      const fragment = await html(text, { quiet: true });
      this.#rendered.replaceChildren(fragment);
      this.#upTo = text.length;
      this.#tail.textContent = this.text.slice(this.#upTo);
    } catch {
      // stays text
    } finally {
      this.#busy = false;
      if (this.#timer > 0) this.#timer = this.text.length > this.#upTo ? setTimeout(() => this.#render(), AGAIN_MS) : 0;
    }
  }
}

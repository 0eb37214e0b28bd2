/** An outline that opens and closes, for the keyboard and screen readers too (ARIA's tree pattern). */

import { h } from "./ui.js";

/** A node: `id`, `label`, `note`, `mark` (an element or null), `children()` or null where it has none, `leaf`.
 *
 * Up and Down move, Right opens or goes in, Left closes or goes out, Home and End, Enter or Space open and close;
 * letters go to the next that begins so. What is open is in `open`, a set of ids, which stays the caller's.
 * @returns {HTMLElement}
 */
export function tree(label, roots, open) {
  const element = h("ul", { class: "outline", role: "tree", "aria-label": label });
  element.append(...roots.map((node) => item(node, 1)));
  element.querySelector("[role=treeitem]")?.setAttribute("tabindex", "0");

  function item(node, level) {
    const line = h("span", { class: "line" }, h("span", { class: "twist", "aria-hidden": "true" }), h("span", { dir: "auto", class: "label" }, node.label), node.mark, h("span", { class: "note" }, node.note));
    const one = h("li", { role: "treeitem", tabindex: "-1", "aria-level": String(level), dataset: { key: `tree ${node.id}` } }, line);
    one.node = node;
    if (node.children) {
      const group = h("ul", { role: "group" });
      one.append(group);
      unfold(one, open.has(node.id), level);
    }
    line.addEventListener("click", () => {
      reach(one);
      if (node.children) unfold(one, one.getAttribute("aria-expanded") !== "true", level);
    });
    return one;
  }

  function unfold(one, is, level = Number(one.getAttribute("aria-level"))) {
    const group = one.querySelector(":scope > ul");
    one.setAttribute("aria-expanded", String(is));
    group.hidden = !is;
    if (is) open.add(one.node.id);
    else open.delete(one.node.id);
    if (is && !group.children.length) group.append(...one.node.children().map((node) => item(node, level + 1)));
  }

  const shown = () => [...element.querySelectorAll("[role=treeitem]")].filter((one) => !one.parentElement.closest("ul[hidden]"));

  function reach(one) {
    if (!one) return;
    for (const other of element.querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
    one.setAttribute("tabindex", "0");
    one.focus();
  }

  function pressed(event) {
    const one = event.target.closest("[role=treeitem]");
    if (!one || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = shown();
    const at = all.indexOf(one);
    const expanded = one.getAttribute("aria-expanded");
    if (event.key === "ArrowDown") reach(all[at + 1]);
    else if (event.key === "ArrowUp") reach(all[at - 1]);
    else if (event.key === "Home") reach(all[0]);
    else if (event.key === "End") reach(all.at(-1));
    else if (event.key === "ArrowRight" && expanded === "false") unfold(one, true);
    else if (event.key === "ArrowRight" && expanded === "true") reach(one.querySelector("[role=treeitem]"));
    else if (event.key === "ArrowLeft" && expanded === "true") unfold(one, false);
    else if (event.key === "ArrowLeft") reach(one.parentElement.closest("[role=treeitem]"));
    else if ((event.key === "Enter" || event.key === " ") && expanded) unfold(one, expanded !== "true");
    else if (event.key.length === 1 && event.key !== " ") {
      const begins = ({ node }) => node.label.toLowerCase().startsWith(event.key.toLowerCase());
      reach([...all.slice(at + 1), ...all.slice(0, at)].find(begins));
    } else return;
    event.preventDefault();
  }
  element.addEventListener("keydown", pressed);
  return element;
}

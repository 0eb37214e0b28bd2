/** Accuracy against cost: every model a point, the network's policies on a line, of live traffic or of a file. */

import { fitted, scatter, undominated } from "./chart.js";
import { choice, cut, exact, follow, holding, nothing, table, when } from "./parts.js";
import { fromFile, fromTraffic, MOST_BYTES } from "./results.js";
import { announce, badge, count, failure, h, percent, usd } from "./ui.js";

export const title = "Frontier";

/** @returns {() => void} */
export function mount(root, api) {
  const view = { source: "live", file: null, width: 0 };
  let live = null; // what the node says
  let unfit = () => {};
  const pick = h("input", { type: "file", accept: ".json,application/json", class: "hidden", tabindex: "-1", "aria-hidden": "true", onchange: () => open(pick.files[0]) });
  const chooser = h("button", { type: "button", class: "small", onclick: () => pick.click() }, "Open a file…");
  const sources = choice("What is drawn", [["live", "Live traffic"], ["file", "A file"]], "live", (source) => (source === "file" && !view.file ? (sources.mark("live"), pick.click()) : use(source)));
  const about = h("p", { class: "note" });
  const told = h("div", {});
  const drawing = h("div", { class: "drawing" });
  const gained = h("div", {});
  const tabled = table({ label: "Models and policies", columns, key: (one) => `${one.kind} ${one.name}`, sort: "-accuracy" });
  const listing = h("div", {}, h("h2", {}, "The same as a table"), tabled.element);
  const stage = h("div", { hidden: true }, about, drawing, gained, listing);
  root.append(h("div", { class: "row apart heading" }, h("h1", {}, title), h("div", { class: "row" }, sources, chooser, pick)), told, stage);
  const waiting = h("div", {});
  root.append(waiting);
  const followed = follow(api, "/v1/admin/frontier", waiting, (found, body) => {
    body.replaceChildren();
    live = { since: found.since_utc, more: found.more, ...fromTraffic(found) };
    if (view.source === "live") draw();
  });
  unfit = fitted(root, () => draw());

  async function open(file) {
    pick.value = ""; // so that the same file can be opened again
    if (!file) return;
    told.replaceChildren();
    try {
      if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${count(Math.round(file.size / 1e6))} MB: no result of an evaluation is that large, and ${MOST_BYTES / 1e6} MB are the most that is read.`);
      view.file = fromFile(file.name, await file.text());
      use("file");
      announce(`${file.name} is drawn.`);
    } catch (error) {
      told.replaceChildren(failure(error));
    }
  }

  function use(source) {
    view.source = source;
    sources.mark(source);
    told.replaceChildren();
    draw();
  }

  function draw() {
    const shown = view.source === "file" ? view.file : live;
    waiting.hidden = view.source === "file";
    stage.hidden = !shown;
    if (!shown) return;
    if (view.source === "file") about.textContent = shown.about;
    else about.replaceChildren("Requests since ", when(shown.since), ". Accuracy is by graded answers: feedback, and questions with known answers.");
    const drawn = shown.points.filter((one) => one.accuracy !== null && one.cost !== null);
    const left = shown.points.length - drawn.length;
    holding(stage, () => {
      drawing.replaceChildren(...(drawn.length ? [scatter({ points: drawn, oracle: shown.oracle, format: (dollars) => `$${dollars}`, width: Math.max(280, root.clientWidth - inset(root)), about: words(drawn) }), legend(left)] : [empty(view.source, shown.points.length)]));
      gained.replaceChildren(...gains(shown.gains ?? []));
      listing.hidden = !shown.points.length;
      const good = new Set(undominated(drawn.filter((one) => one.kind === "model")));
      tabled.rest.textContent = shown.more ? `${count(shown.more)} more are not shown.` : "";
      tabled.update(shown.points.map((one) => ({ ...one, good: good.has(one) })));
    });
  }

  return () => {
    followed.stop();
    unfit();
  };
}

const inset = (element) => parseFloat(getComputedStyle(element).paddingLeft) + parseFloat(getComputedStyle(element).paddingRight);

const words = (points) => `Accuracy against cost of ${points.length} models and policies. Arrow keys go from one to the next; the table below has the same figures.`;

function empty(source, n) {
  if (source === "file") return nothing("None of these has a cost.", "So there is nothing to draw accuracy against: evaluate a set whose answers have cost_usd. The table below has their accuracy.");
  if (n) return nothing("No answer was graded yet.", "Grade answers in the Ask view, or send POST /v1/feedback: then each model that was right or wrong is a point here. Or open the result of an evaluation.");
  return nothing("Nothing was asked this week.", "Ask something in the Ask view and grade the answer. Or measure on a recorded set: manyminds eval DIR --json > RESULT.json, and open that file here.");
}

function legend(left) {
  const key = (kind, text) => h("span", { class: "key" }, h("span", { class: `shape ${kind}`, "aria-hidden": "true" }), text);
  return h("p", { class: "legend note" }, key("network", "the network, by policy"), key("good", "a model that no cheaper one beats"), key("model", "a model"), left > 0 && h("span", {}, `${count(left)} without accuracy or cost: in the table only.`));
}

function gains(rows) {
  if (!rows.length) return [];
  const line = (row) => h("li", {}, h("strong", {}, row.policy), `: ${row.gain}${row.ratio ? `, at ${row.ratio}` : ""}`);
  return [h("section", { class: "card gains" }, h("h2", {}, "Gain over the best single model, ", h("span", { dir: "auto" }, rows[0].best)), h("ul", { class: "plain" }, rows.map(line)))];
}

const columns = [
  { name: "name", label: "Name", value: (one) => one.name, cell: (one) => cut(one.name, "strong") },
  { name: "kind", label: "What", value: (one) => (one.kind === "network" ? 0 : one.good ? 1 : 2), cell: (one) => (one.kind === "network" ? badge("policy", "busy") : one.good ? badge("unbeaten", "ok") : "model") },
  { name: "accuracy", label: "Right", num: true, value: (one) => one.accuracy, cell: (one) => exact(one.accuracy) },
  { name: "of", label: "Graded", num: true, value: (one) => one.of, cell: (one) => count(one.of) },
  { name: "cost", label: "$ per 1,000", num: true, value: (one) => one.cost, cell: (one) => (one.cost === 0 ? "free" : usd(one.cost)) },
  { name: "claimed", label: "Claims", num: true, value: (one) => one.claimed, cell: (one) => percent(one.claimed) },
  { name: "asked", label: "Asked", num: true, value: (one) => one.asked, cell: (one) => count(one.asked) },
];

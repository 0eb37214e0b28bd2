/** What a report says of an answer: figures, whom it is owed to, what it rests on, and the reader's grade. */

import { post } from "./api.js";
import { duration, h, hue, meter, percent, plural, usd } from "./ui.js";

/** All of it, for one report; `seconds` as the page measured them. */
export function outcome(report, { seconds, best }) {
  if (report.privacy) return h("div", { class: "outcome" }, secret(report.privacy), details(report));
  return h(
    "div",
    { class: "outcome" },
    report.declined ? h("p", { class: "note" }, "No documents hold an answer to this.") : null,
    figures(report, seconds, best),
    attribution(report.attribution ?? []),
    citations(report.citations ?? []),
    conflicts(report.conflicts ?? []),
    refusals(report.granted ?? []),
    details(report),
  );
}

const figure = (name, value, title) => h("div", title ? { title } : {}, h("dt", {}, name), h("dd", {}, value));

function figures(report, seconds, best) {
  const saved = report.saved_usd;
  const against = best ? `against ${best}, the best single model` : "against the best single model";
  return h(
    "dl",
    { class: "figures" },
    figure("Agreement", percent(report.agreement), "Share of the readable answers that name the winner"),
    figure("Probability", percent(report.probability), "That this answer is right"),
    figure("Time", duration(seconds)),
    figure("Cost", usd(report.cost_usd), report.cache === "hit" ? "Kept from before: nobody was asked" : "What all calls cost"),
    figure(saved < 0 ? "Extra" : "Saved", usd(Math.abs(saved ?? NaN)), `${saved < 0 ? "More than" : "Compared"} ${saved < 0 ? "what the best single model would have cost" : against}`),
  );
}

/** A private answer says nothing of anybody. */
function secret({ epsilon, delta, polled }) {
  return h(
    "div",
    {},
    h("dl", { class: "figures" }, figure("Epsilon", String(epsilon)), figure("Delta", String(delta)), figure("Polled", plural(polled, "source"))),
    h("p", { class: "note" }, "A private answer names no source: epsilon and delta bound what it tells of any one of them."),
  );
}

/** A stacked bar, and the same as a table. */
export function attribution(rows) {
  const owed = rows.filter((row) => row.share > 0).sort((one, other) => other.share - one.share);
  if (!owed.length) return null;
  const bar = h("div", { class: "stack", "aria-hidden": "true" });
  for (const row of owed) {
    const part = h("span", { class: hue(row.source), title: `${row.source} ${percent(row.share)}` });
    part.style.setProperty("--share", row.share);
    bar.append(part);
  }
  const table = h(
    "table",
    { class: "legend" },
    h("caption", {}, `Owed to${owed.some((row) => row.estimated) ? " (estimated, by the drafts)" : ""}`),
    h("thead", { class: "hidden" }, h("tr", {}, h("th", { scope: "col" }, "Source"), h("th", { scope: "col" }, "Share"))),
    h("tbody", {}, owed.map((row) => h("tr", { class: hue(row.source) }, h("th", { scope: "row" }, h("span", { class: "swatch", "aria-hidden": "true" }), row.source), h("td", { class: "num" }, percent(row.share))))),
  );
  return h("div", { class: "attribution" }, bar, table);
}

function citations(rows, title = "Rests on") {
  if (!rows.length) return null;
  const item = (cited) =>
    h(
      "li",
      {},
      cited.quote ? h("q", {}, cited.quote) : null,
      h("span", { class: "note" }, [cited.source, cited.document, [cited.heading ?? []].flat().join(" › "), cited.paragraph ? `paragraph ${cited.paragraph}` : null].filter(Boolean).join(" · ")),
    );
  return h("section", { class: "citations" }, h("h3", {}, title), h("ol", {}, rows.map(item)));
}

function conflicts(rows) {
  if (!rows.length) return null;
  const item = (other) => h("li", {}, h("b", {}, other.answer), " ", meter(other.probability, "Probability"), citations(other.citations ?? [], "By"));
  return h("section", { class: "citations" }, h("h3", {}, "Others have grounds for"), h("ul", {}, rows.map(item)));
}

function refusals(rows) {
  const refused = rows.filter((row) => row.refused);
  if (!refused.length) return null;
  return h("ul", { class: "note refusals" }, refused.map((row) => h("li", {}, `${row.source} was not asked: ${row.refused}`)));
}

/** Which request it was, and whether it was right: said once. */
function details(report) {
  const words = [report.policy, report.strategy, report.cache === "hit" ? "kept from before" : null].filter(Boolean).join(" · ");
  const said = h("span", { class: "note" });
  const grade = async (correct) => {
    for (const button of buttons) button.disabled = true;
    try {
      await post("/v1/feedback", { request_id: report.request_id, correct });
      said.textContent = correct ? "Graded right. Thank you." : "Graded wrong. Thank you.";
    } catch (error) {
      said.textContent = error.message;
      for (const button of buttons) button.disabled = error.code === "already_graded";
    }
  };
  const buttons = [
    h("button", { type: "button", class: "small", onclick: () => grade(1) }, "Right"),
    h("button", { type: "button", class: "small", onclick: () => grade(0) }, "Wrong"),
  ];
  const asked = h("span", { role: "status" }, said);
  return h(
    "div",
    { class: "details row apart" },
    h("span", { class: "note" }, words, words ? " · " : "", h("code", { title: "Request id" }, report.request_id)),
    h("span", { class: "row", role: "group", "aria-label": "Was this answer right?" }, h("span", { class: "note", "aria-hidden": "true" }, "Was it right?"), ...buttons, asked),
  );
}

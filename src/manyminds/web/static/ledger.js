/** What was asked, of whom, what it cost, and what is left: of budgets, and of what sources may tell. */

import { bars, fitted } from "./chart.js";
import { choice, cut, exact, figure, filled, follow, short, holding, nothing, table, when } from "./parts.js";
import { announce, badge, count, duration, h, percent, plural, usd } from "./ui.js";

export const title = "Ledger";

const BY = [["day", "Day"], ["key", "Key"], ["expert", "Expert"], ["policy", "Policy"]];
const WHAT = [["cost_usd", "Cost"], ["requests", "Requests"]];
const TONES = { ok: "ok", failed: "bad", cut: "warn", cancelled: "", late: "warn", gone: "" };

/** @returns {() => void} */
export function mount(root, api) {
  const view = { by: "day", what: "cost_usd", width: 0 };
  let data = null;
  let unfit = () => {};
  root.append(h("h1", {}, title));
  const summary = h("dl", { class: "figures card" });
  const sums = Object.fromEntries(BY.map(([by, label]) => [by, table({ label: `Totals by ${label.toLowerCase()}`, columns: totals(by, label), key: (row) => String(row[by]), sort: by === "day" ? "-name" : "-cost" })]));
  const picture = h("div", { class: "drawing" });
  const listed = h("div", { class: "summed" });
  const which = choice("Sum by", BY, view.by, (by) => ((view.by = by), summed(), announce(`Totals by ${by}`)));
  const what = choice("Draw", WHAT, view.what, (name) => ((view.what = name), summed()));
  const spent = h("section", {}, h("div", { class: "row apart tools" }, h("h2", {}, "Totals"), h("div", { class: "row" }, which, what)), picture, listed);
  const requests = table({ label: "Latest requests", columns: REQUESTS, key: (row) => row.request_id, details: calls });
  const latest = h("section", {}, h("h2", {}, "Latest requests"), requests.element);
  const limits = h("div", { class: "cards limits" });
  const live = follow(api, "/v1/admin/ledger", root, (found, body) => {
    data = found;
    const asked = data.requests?.length > 0 || data.totals?.day?.length > 0;
    const none = nothing("Nothing was asked yet.", "Ask something in the Ask view, or point an OpenAI client at this node: each request is then listed here with its calls and what they cost.");
    if (!spent.isConnected) {
      body.replaceChildren(h("div", { class: "asked" }), limits);
      unfit();
      unfit = fitted(body, (width) => ((view.width = width), summed()));
    }
    const first = body.firstChild;
    if (!asked) first.replaceChildren(none);
    else if (!spent.isConnected) first.replaceChildren(summary, spent, latest);
    limits.replaceChildren(budgets(data.budgets ?? []), epsilons(data.privacy ?? []), nats(data.sources ?? []));
    if (!asked) return;
    summary.replaceChildren(...overview(data));
    requests.update(data.requests ?? []);
    requests.rest.textContent = data.more ? `${count(data.more)} older ones are not shown: manyminds ledger show lists them.` : "";
    summed();
  });

  function summed() {
    if (!data || !spent.isConnected) return;
    const rows = data.totals?.[view.by] ?? [];
    what.hidden = view.by !== "day";
    picture.hidden = view.by !== "day" || !rows.length;
    holding(spent, () => {
      if (listed.firstChild !== sums[view.by].element) listed.replaceChildren(sums[view.by].element);
      const most = Math.max(...rows.map((row) => row.cost_usd), 0);
      sums[view.by].update(rows.map((row) => ({ ...row, most })));
      if (!picture.hidden) picture.replaceChildren(days(rows.slice(-60), view));
    });
  }

  return () => {
    live.stop();
    unfit();
  };
}

// --- totals ----------------------------------------------------------------------------------------

function overview({ totals: { day = [] } = {}, requests = [] }) {
  const sum = (name) => day.reduce((all, row) => all + row[name], 0);
  const today = day.find((row) => row.day === new Date().toISOString().slice(0, 10));
  const saved = requests.reduce((all, row) => all + (row.saved_usd || 0), 0);
  const pairs = [
    ["Today (UTC)", today ? `${usd(today.cost_usd)} for ${plural(today.requests, "request")}` : "nothing yet"],
    [`${plural(day.length, "day")}`, `${usd(sum("cost_usd"))} for ${plural(sum("requests"), "request")}`],
    ["Calls", count(sum("calls"))],
    ["Tokens read", short(sum("prompt_tokens"))],
    ["Tokens written", short(sum("completion_tokens"))],
    [`Saved by the latest ${count(requests.length)}`, usd(saved)],
  ];
  return pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
}

/** Every day from the first to the last, also those without a request, as bars. */
function days(rows, { what, width }) {
  const of = new Map(rows.map((row) => [row.day, row]));
  const filledIn = [];
  for (let at = Date.parse(rows[0].day); at <= Date.parse(rows.at(-1).day) && filledIn.length < 366; at += 86_400_000) {
    const day = new Date(at).toISOString().slice(0, 10);
    filledIn.push(of.get(day) ?? { day, requests: 0, cost_usd: 0 });
  }
  const format = what === "cost_usd" ? usd : figure;
  const label = (row) => new Date(row.day).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const words = (row) => `${row.day}: ${usd(row.cost_usd)} for ${plural(row.requests, "request")}`;
  const about = `${what === "cost_usd" ? "Cost" : "Requests"} by day, ${rows[0].day} to ${rows.at(-1).day}; the table below has the figures`;
  return bars({ rows: filledIn, value: (row) => row[what], label, words, format, about, width: Math.max(260, width) });
}

const totals = (by, label) => [
  { name: "name", label, value: (row) => String(row[by]), cell: (row) => cut(String(row[by] || "none"), "strong") },
  { name: "cost", label: "Cost", num: true, value: (row) => row.cost_usd, cell: (row) => [usd(row.cost_usd), by === "day" ? null : strip(row)] },
  { name: "requests", label: "Requests", num: true, value: (row) => row.requests, cell: (row) => count(row.requests) },
  { name: "calls", label: "Calls", num: true, value: (row) => row.calls, cell: (row) => count(row.calls) },
  { name: "read", label: "Tokens read", num: true, value: (row) => row.prompt_tokens, cell: (row) => count(row.prompt_tokens) },
  { name: "written", label: "Tokens written", num: true, value: (row) => row.completion_tokens, cell: (row) => count(row.completion_tokens) },
];

/** How much that is, of the most. */
function strip(row) {
  const bar = h("span", { class: "meter", "aria-hidden": "true" }, h("span"));
  bar.style.setProperty("--share", row.most > 0 ? row.cost_usd / row.most : 0);
  return bar;
}

// --- requests --------------------------------------------------------------------------------------

const REQUESTS = [
  { name: "at", label: "At", cell: (row) => when(row.at_utc) },
  { name: "status", label: "Status", cell: (row) => badge(row.status, TONES[row.status] ?? "") },
  { name: "policy", label: "Policy", cell: (row) => [row.policy, h("span", { class: "note" }, row.strategy && row.strategy !== row.policy ? ` · ${row.strategy}` : "")] },
  { name: "key", label: "Key", cell: (row) => cut(row.key || "none") },
  { name: "section", label: "Section", cell: (row) => cut(row.section || "–") },
  { name: "asked", label: "Asked", cell: (row) => cut(row.calls.map((call) => call.expert).join(", ") || "nobody") },
  { name: "probability", label: "Sure", num: true, hint: "Posterior probability of what was released", cell: (row) => percent(row.probability) },
  { name: "seconds", label: "Took", num: true, cell: (row) => duration(row.seconds) },
  { name: "cost", label: "Cost", num: true, cell: (row) => usd(row.cost_usd) },
];

/** A request, opened: each of its calls. */
function calls(row) {
  const facts = [["Request", row.request_id], ["Purpose", row.purpose], ["Agreement", row.agreement === null || row.agreement === undefined ? "" : percent(row.agreement)], ["Saved", row.saved_usd ? usd(row.saved_usd) : ""]].filter(([, value]) => value);
  const heads = ["Expert", "Status", "Stage", "Method", "First token", "Took", "Tokens", "Cost"];
  const line = (call) => {
    const ended = [badge(call.status, TONES[call.status] ?? ""), call.error && h("span", { class: "note" }, ` ${call.error}`)].filter(Boolean);
    const figures = [count(call.stage), call.method, duration(call.ttft_s), duration(call.seconds), `${count(call.prompt_tokens)}, ${count(call.completion_tokens)}`, usd(call.cost_usd)];
    const name = [cut(call.expert), call.source && call.source !== call.expert ? cut(call.source, "note") : null].filter(Boolean);
    return h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, ended), figures.map((text) => h("td", { class: "num" }, text)));
  };
  const inner = h("table", {}, h("thead", {}, h("tr", {}, heads.map((text, i) => h("th", { scope: "col", class: i > 1 ? "num" : "" }, text)))), h("tbody", {}, row.calls.map(line)));
  const shown = row.calls.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Calls of request ${row.request_id}` }, inner) : h("p", { class: "note" }, "Nobody was asked: the answer was kept from before, or there was none.");
  const words = [row.question && h("p", { dir: "auto" }, h("span", { class: "note" }, "Question "), cut(row.question)), row.answer && h("p", { dir: "auto" }, h("span", { class: "note" }, "Answer "), cut(row.answer))].filter(Boolean);
  return h("div", { class: "opened-row single" }, h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))), words, shown);
}

// --- what is left ----------------------------------------------------------------------------------

const PERIODS = { day: "today", month: "this month", total: "in all" };

const limit = (heading, about, rows, otherwise) => h("section", { class: "card" }, h("h2", {}, heading), h("p", { class: "note" }, about), rows.length ? h("ul", { class: "meters" }, rows) : h("p", {}, otherwise));

const line = (name, ...inside) => h("li", {}, cut(name, "strong"), ...inside);

function budgets(rows) {
  const one = (row) => line(row.name || row.key, filled(row.spent_usd, row.limit_usd, `${usd(row.spent_usd)} of ${usd(row.limit_usd)} ${PERIODS[row.period] ?? row.period}`), h("span", { class: "note" }, left(row.limit_usd - row.spent_usd, usd)));
  return limit("Budgets of keys", "What each key may cost. What a running request may cost at most counts as spent.", rows.map(one), "No key has a budget. manyminds keys create NAME --budget-usd 5 makes one that has.");
}

function epsilons(rows) {
  const one = (row) => line(row.source, filled(row.epsilon, row.most_epsilon, `${row.epsilon.toFixed(2)} of ${figure(row.most_epsilon)}`), h("span", { class: "note" }, `${left(row.most_epsilon - row.epsilon, figure)}, at delta ${row.delta.toExponential(0).replace("-", "−")}`));
  return limit("Epsilon of sources", "What private answers have told of each source, for ever. Who has none left is not polled any more.", rows.map(one), "No private answer was given yet. Ask with model private: see docs/privacy.md.");
}

function nats(rows) {
  const one = (row) => {
    const of = `${plural(row.answers, "answer")}, ${figure(row.nats)} nats, ${figure(row.shares)} in shares`;
    const purposes = (row.purposes ?? []).map((use) => `${use.purpose || "not said"} ${count(use.answers)}`).join(", ");
    const budget = row.budget_nats === null || row.budget_nats === undefined ? null : filled(row.budget_spent_nats ?? 0, row.budget_nats, `${figure(row.budget_spent_nats ?? 0)} of ${figure(row.budget_nats)} nats ${PERIODS[row.period] ?? ""}`);
    return line(row.source, budget, h("span", { class: "note" }, of), purposes && h("span", { class: "note" }, `for: ${purposes}`));
  };
  return limit("What answers owe to sources", "How far each source moved answers, in nats, and what is left of its owner's budget.", rows.map(one), "No answer owed anything to a source yet: an answer put together from several does.");
}

const left = (rest, format) => (rest > 0 ? `${format(rest)} left` : "nothing left");

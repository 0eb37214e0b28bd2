/** Who can be asked: what each claims and what was measured here, and what may be done about it. */

import { adding } from "./adding.js";
import { choice, cut, exact, figure, follow, listed, nothing, table } from "./parts.js";
import { badge, count, duration, failure, h, percent, plural, usd } from "./ui.js";

export const title = "Experts";

const WINDOWS = [["hour", "Hour"], ["day", "Day"], ["week", "Week"]];
const FEWEST_CALLS = 5; // of which a share that failed says something
const FAILING = 0.8; // uptime below which an expert is called failing
const BELIEVED_MS = 12_000; // what was just done counts, while the node may still say what was before
const UNMEASURED = { calls: 0, uptime: null, errors: {}, accuracy: null, graded: 0, sections: [] };

const STATES = {
  running: ["running", "ok", "It is asked."],
  paused: ["paused", "", "Nobody asks it until it is resumed."],
  spared: ["circuit open", "bad", "It failed too often of late and is left alone for a while."],
  failing: ["failing", "warn", "More than one call in five failed."],
  drifted: ["drifted", "warn", "It is right less often than it was before."],
  down: ["not running", "", "It cannot be asked now."],
};

/** @returns {() => void} */
export function mount(root, api) {
  const view = { window: "week", text: "", state: "", pending: new Set(), done: new Map() };
  let experts = [];
  const said = h("div", { role: "status" });
  const told = h("div", {});
  const counted = h("span", { class: "note" });
  const list = table({ label: "Experts", columns: columns(act), key: (one) => one.name, details, sort: "name" });
  const add = adding(api, () => live.refresh());
  const search = h("input", { type: "search", "aria-label": "Filter by name, source, kind or skill", placeholder: "Filter by name, source, skill…", oninput: () => ((view.text = search.value), show()) });
  const states = h("select", { "aria-label": "State", onchange: () => ((view.state = states.value), show()) });
  states.append(h("option", { value: "" }, "Any state"), ...Object.entries(STATES).map(([name, [text]]) => h("option", { value: name }, text)));
  const over = choice("Measured over the last", WINDOWS, view.window, (name) => ((view.window = name), show()));
  const opener = h("button", { type: "button", class: "primary", "aria-expanded": "false", onclick: () => add.toggle() }, "Add an expert");
  add.opener = opener;
  root.append(h("div", { class: "row apart heading" }, h("h1", {}, title), opener), add.element, said, told);
  const tools = h("div", { class: "row tools" }, search, states, h("span", { class: "row" }, h("span", { class: "note" }, "Measured over the last"), over), counted);
  const live = follow(api, "/v1/admin/experts", root, (data, body) => {
    experts = done(data.data ?? [], view.done);
    if (!tools.isConnected && experts.length) body.replaceChildren(tools, list.element);
    if (!experts.length) body.replaceChildren(nothing("No expert is known yet.", "Add one by its address: any OpenAI-compatible server will do, such as Ollama, vLLM or a provider. On this machine, `manyminds pull` brings small models."));
    list.rest.textContent = data.more ? `${count(data.more)} more are not shown.` : "";
    show();
  });

  function show() {
    const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = experts.map((one) => seen(one, view)).filter((one) => (!view.state || one.state === view.state) && words.every((word) => one.text.includes(word)));
    counted.textContent = rows.length === experts.length ? plural(rows.length, "expert") : `${count(rows.length)} of ${plural(experts.length, "expert")}`;
    list.update(rows);
  }

  async function act(what, expert) {
    if (what === "remove" && !(await sure(expert))) return;
    view.pending.add(expert.name);
    show();
    told.replaceChildren();
    try {
      const answer = await api.post(`/v1/admin/${what}`, { name: expert.name });
      const words = what === "remove" ? removed(answer.removed ?? []) : `${expert.name} is ${answer.paused ? "paused: nobody asks it until it is resumed" : "asked again"}.`;
      const whom = what === "remove" ? (answer.removed ?? []).map((gone) => gone.name) : [expert.name];
      for (const name of whom) view.done.set(name, { paused: what === "remove" ? null : answer.paused, until: Date.now() + BELIEVED_MS });
      experts = done(experts, view.done);
      said.replaceChildren(h("p", { class: "notice" }, words));
    } catch (error) {
      told.replaceChildren(failure(error));
    }
    view.pending.delete(expert.name);
    show();
    live.refresh();
  }

  return () => {
    live.stop();
    add.stop();
    document.querySelector("dialog.removal")?.remove();
  };
}

/** Experts as they are since what was just done: paused, resumed, or gone. */
function done(experts, did) {
  const of = ({ name }) => (did.get(name)?.until > Date.now() ? did.get(name) : null);
  return experts.filter((one) => of(one)?.paused !== null).map((one) => (of(one) ? { ...one, paused: of(one).paused } : one));
}

/** An expert as the table shows it now. */
function seen(expert, view) {
  const rating = { ...UNMEASURED, ...expert.ratings?.[view.window] };
  const text = [expert.name, expert.source, expert.kind, expert.model, expert.description, ...(expert.skills ?? [])].join(" ").toLowerCase();
  return { ...expert, rating, text, state: state(expert, rating), pending: view.pending.has(expert.name), window: view.window };
}

function state(expert, rating) {
  if (expert.paused) return "paused";
  if (expert.spared) return "spared";
  if (!expert.running) return "down";
  if (rating.calls >= FEWEST_CALLS && rating.uptime !== null && rating.uptime < FAILING) return "failing";
  return expert.drifted_utc ? "drifted" : "running";
}

// --- cells -----------------------------------------------------------------------------------------

const columns = (act) => [
  { name: "name", label: "Expert", value: (one) => one.name, cell: (one) => [cut(one.name, "strong"), cut([one.kind, one.source !== one.name && one.source].filter(Boolean).join(" · "), "note")] },
  { name: "state", label: "State", value: (one) => Object.keys(STATES).indexOf(one.state), cell: stateCell },
  { name: "accuracy", label: "Right", num: true, hint: "Share of right answers: measured here by feedback, beside what the card claims", value: (one) => one.rating.accuracy ?? one.accuracy - 10, cell: accuracyCell },
  { name: "uptime", label: "Up", num: true, hint: "Share of calls that did not fail", value: (one) => one.rating.uptime, cell: (one) => [percent(one.rating.uptime), sub(one.rating.calls ? plural(one.rating.calls, "call") : "")] },
  { name: "ttft", label: "First token", num: true, hint: "Seconds to the first token: the median, and what 95% of calls stay below", value: (one) => one.rating.ttft_p50_s, cell: (one) => [duration(one.rating.ttft_p50_s), sub(one.rating.ttft_p95_s ? `95%: ${duration(one.rating.ttft_p95_s)}` : "")] },
  { name: "speed", label: "Tokens/s", num: true, hint: "Tokens per second after the first: the median", value: (one) => one.rating.tokens_per_s_p50, cell: (one) => figure(one.rating.tokens_per_s_p50) },
  { name: "price", label: "Price per million", num: true, hint: "Claimed: what is read, and what is written. Paid: for a million tokens of both, as charged", value: (one) => one.price_out_usd_per_m, cell: priceCell },
  { name: "charged", label: "Charged", num: true, hint: "What was charged, over what its card makes of the same texts", value: (one) => one.rating.charged_ratio, cell: (one) => chargedCell(one.rating.charged_ratio) },
  { name: "terms", label: "Offers and terms", cell: (one) => [(one.offers ?? []).length ? h("span", { class: "badges" }, [...one.offers].sort().map((offer) => badge(offer))) : null, h("span", { class: "sub note clamp", title: terms(one.terms), dir: "auto" }, terms(one.terms))] },
  { name: "actions", label: "", cell: (one) => actions(one, act) },
];

const sub = (text) => (text ? h("span", { class: "sub note" }, text) : null);

function stateCell(one) {
  const [text, tone, why] = STATES[one.state];
  const shown = badge(text, tone);
  shown.title = why;
  return one.drifted_utc && one.state !== "drifted" ? [shown, badge("drifted", "warn")] : shown;
}

function accuracyCell(one) {
  const measured = one.rating.accuracy;
  const bar = h("span", { class: "versus", "aria-hidden": "true" }, h("span"), h("i"));
  bar.style.setProperty("--share", measured ?? 0);
  bar.style.setProperty("--claim", one.accuracy ?? 0);
  const told = measured === null ? "not measured" : `${percent(measured)} of ${count(one.rating.graded)}`;
  return [h("span", { class: measured === null ? "note" : "" }, told), bar, sub(`claims ${percent(one.accuracy)}`)];
}

function priceCell(one) {
  const [read, written, paid] = [one.price_in_usd_per_m, one.price_out_usd_per_m, one.rating.usd_per_m];
  const free = !read && !written;
  const hour = one.price_cpu_usd_per_hour ? `${usd(one.price_cpu_usd_per_hour)} a CPU hour` : "";
  return [free ? hour || "free" : `${usd(read)} in, ${usd(written)} out`, sub(!paid ? "" : `paid ${usd(paid)}`)];
}

function chargedCell(ratio) {
  if (ratio === null || ratio === undefined) return "–";
  const text = `${figure(ratio)}×`;
  return ratio > 1.25 ? badge(text, "warn") : text;
}

/** What an owner allows, in words. */
function terms(of = {}) {
  const words = [];
  if (of.purposes?.length) words.push(`for ${listed(of.purposes)} only`);
  if (of.callers?.length) words.push(`answers ${listed(of.callers)} only`);
  if (of.max_share < 1) words.push(`at most ${percent(of.max_share)} of an answer`);
  if (known(of.budget_nats)) words.push(`${figure(of.budget_nats)} nats ${of.period === "total" ? "in all" : `a ${of.period}`}`);
  if (known(of.requests_per_min)) words.push(`${count(of.requests_per_min)} requests a minute`);
  if (known(of.epsilon)) words.push(`epsilon ${figure(of.epsilon)} in all`);
  return words.length ? words.join("; ") : "for anybody and anything";
}

const known = (value) => value !== null && value !== undefined;

function actions(one, act) {
  const resume = one.paused;
  const name = resume ? "resume" : "pause";
  const button = (what, text, tone = "") =>
    h("button", { type: "button", class: `small ${tone}`, disabled: one.pending, "aria-label": `${text} ${one.name}`, onclick: () => act(what, one), dataset: { key: `${what === "remove" ? "remove" : "pause"} ${one.name}` } }, text);
  return h("span", { class: "row actions" }, button(name, resume ? "Resume" : "Pause"), button("remove", "Remove", "quiet"));
}

// --- one row, opened -------------------------------------------------------------------------------

function details(one) {
  const { rating } = one;
  const facts = [
    ["Model", one.model], ["Licence", one.licence], ["Origin", ORIGINS[one.origin]?.[0]], ["Context", one.context_tokens ? `${count(one.context_tokens)} tokens` : ""],
    ["Parameters", one.parameters ? figure(one.parameters / 1e9) + " billion" : ""], ["Documents", one.paragraphs ? plural(one.paragraphs, "paragraph") : ""],
    ["Tokens/s, 95%", rating.tokens_per_s_p95 ? figure(rating.tokens_per_s_p95) : ""], ["By its prices", known(rating.claimed_usd_per_m) ? `${usd(rating.claimed_usd_per_m)} per million` : ""],
    ["Worse since", one.drifted_utc?.slice(0, 10)], ["Terms", terms(one.terms)],
  ].filter(([, value]) => value);
  const sections = [...(rating.sections ?? [])].sort((a, b) => b.graded - a.graded);
  const errors = Object.entries(rating.errors ?? {}).sort(([, a], [, b]) => b - a);
  return h("div", { class: "opened-row" },
    h("div", {}, one.description && h("p", { dir: "auto" }, one.description), (one.skills ?? []).length > 0 && h("p", { class: "badges" }, one.skills.map((skill) => badge(skill))),
      h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value))))),
    h("div", {}, h("h3", {}, "Right by section"), sections.length ? h("ul", { class: "sections" }, sections.map(section)) : h("p", { class: "note" }, "No answer of it was graded in this time. Feedback on answers does that: see the Ask view, or POST /v1/feedback.")),
    h("div", {}, h("h3", {}, "Failures"), errors.length ? h("ul", { class: "plain" }, errors.map(([kind, n]) => h("li", {}, `${kind.replace(/Error$/, "")}: ${count(n)}`))) : h("p", { class: "note" }, rating.calls ? "None." : "It was not asked in this time.")));
}

function section({ section: name, accuracy, graded }) {
  const bar = h("span", { class: "meter", "aria-hidden": "true" }, h("span"));
  bar.style.setProperty("--share", accuracy);
  return h("li", {}, cut(name || "not known"), bar, h("span", { class: "num" }, `${exact(accuracy)} of ${count(graded)}`));
}

// --- removing --------------------------------------------------------------------------------------

const ORIGINS = {
  added: ["added by a command", "It is deleted from what was added here."],
  own: ["your own file", "The file of its model stays where it is."],
  file: ["manyminds.toml", "Its [[expert]] in manyminds.toml stays and may be deleted; while it is there, it is not asked all the same."],
  catalogue: ["the catalogue", "Its files stay on the disk."],
  peer: ["another node", "It is another node, which this one asks no more; what others make of it is theirs."],
};

/** Asks whether it is meant, and says what it means. Resolves to whether it is. */
function sure(expert) {
  const dialog = h("dialog", { class: "removal", "aria-labelledby": "removal-title", "aria-describedby": "removal-what" });
  const points = [
    "Nobody asks it from now on, on any gateway of this ledger.",
    "Kept answers that it had a part in are dropped.",
    "Its grades, and those that its votes gave others, teach nobody.",
    "What was learnt with it is learnt anew without it; until then nothing goes by that.",
  ];
  dialog.append(
    h("h2", { id: "removal-title" }, `Remove ${expert.name}?`),
    h("div", { id: "removal-what" },
      h("p", {}, "From now on the network is what it would be had it never been in it:"),
      h("ul", {}, points.map((point) => h("li", {}, point))),
      h("p", {}, `Records of past requests stay. ${ORIGINS[expert.origin]?.[1] ?? ""}`),
      h("p", { class: "note" }, "To leave it out for a while, pause it. ", h("code", { dir: "auto" }, `manyminds experts remove --undo ${expert.name}`), " brings it back, as one of whom nothing is known.")),
    h("div", { class: "row end" },
      h("button", { type: "button", autofocus: true, onclick: () => dialog.close("") }, "Keep it"),
      h("button", { type: "button", class: "danger", onclick: () => dialog.close("remove") }, "Remove it")));
  document.body.append(dialog);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "remove");
      dialog.remove();
    });
  });
}

/** What became of those that left. */
function removed(rows) {
  const words = rows.map((row) => `${row.name} was withdrawn: ${plural(row.requests ?? 0, "request")} and ${plural(row.outcomes ?? 0, "outcome")} teach no more.`);
  return words.join(" ") || "It was withdrawn.";
}

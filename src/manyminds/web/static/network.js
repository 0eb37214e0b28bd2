/** Other nodes: who is up, how quick, how far trusted, what went between them and this one, and what is owed. */

import { s } from "./chart.js";
import { cut, figure, follow, nothing, table, when } from "./parts.js";
import { badge, count, duration, h, percent, plural, usd } from "./ui.js";

export const title = "Network";

const MOST_DRAWN = 48;
const NAMED = 16; // peers on the map, up to which each has its name

/** @returns {() => void} */
export function mount(root, api) {
  root.append(h("h1", {}, title));
  const peers = table({ label: "Peers", columns: PEERS, key: (one) => one.id, sort: "name" });
  const receipts = table({ label: "Receipts", columns: RECEIPTS, key: (one) => `${one.request_id} ${one.role} ${one.peer} ${one.at_utc}` });
  const summary = h("div", { class: "card network" });
  const received = h("section", {}, h("h2", {}, "Receipts"), h("p", { class: "note" }, "Of every answer between nodes both sides keep the same receipt, signed by both. ", h("code", {}, "manyminds ledger receipts --json"), " has the signed documents, ", h("code", {}, "manyminds verify"), " checks them offline."));
  const none = h("p", { class: "note" }, "No answer went between this node and another yet.");
  received.append(receipts.element, none);
  const live = follow(api, "/v1/admin/network", root, (data, body) => {
    const found = data.peers ?? [];
    const past = data.receipts ?? [];
    if (!found.length && !past.length) return body.replaceChildren(alone(data.node));
    if (!summary.isConnected) body.replaceChildren(summary, h("section", {}, h("h2", {}, "Peers"), peers.element), received);
    summary.replaceChildren(h("div", { class: "grow" }, totals(data)), map(data.node, found));
    peers.update(found);
    peers.rest.textContent = data.more_peers ? `${count(data.more_peers)} more are not shown.` : "";
    const names = new Map(found.map((one) => [one.id, one.name]));
    receipts.update(past.map((one) => ({ ...one, named: names.get(one.peer) ?? one.peer })));
    receipts.element.hidden = !past.length;
    none.hidden = past.length > 0;
    receipts.rest.textContent = data.more ? `${count(data.more)} older ones are not shown.` : "";
  });
  return () => live.stop();
}

function alone(node) {
  const how = [
    ["On a local network", "manyminds join", "serves as this node does, finds the others by multicast, and asks them from then on."],
    ["Where others can be reached at an address", "manyminds join HOST:7447", "joins them there."],
    ["With another organisation", "manyminds federate URL", "shows its card, and keeps it as a peer; its owner does the same with this node."],
  ];
  return h("div", { class: "empty card alone" }, h("p", { class: "strong" }, node ? "This node knows no other yet." : "This node is in no network."), h("p", {}, "A node that joins others asks them as it asks its own experts, and answers them."), h("dl", {}, how.map(([where, command, what]) => h("div", {}, h("dt", {}, where), h("dd", {}, h("code", {}, command), ` ${what}`)))), !node && h("p", { class: "note" }, "Whatever goes between nodes needs the extra net: ", h("code", {}, "pip install 'manyminds[net]'")));
}

function totals({ node, peers }) {
  const sum = (name) => peers.reduce((all, one) => all + (one[name] || 0), 0);
  const up = peers.filter((one) => one.up).length;
  const pairs = [
    ["Peers up", `${count(up)} of ${count(peers.length)}`], ["Their experts", count(sum("experts"))], ["Answers from them", count(sum("answers_from_it"))],
    ["Answers to them", count(sum("answers_to_it"))], ["Owed to them", usd(sum("owed_to_it_usd"))], ["Owed by them", usd(sum("owed_by_it_usd"))],
  ];
  const self = node && h("p", {}, h("strong", { dir: "auto" }, node.name || "This node"), " ", h("code", { class: "id" }, node.id), node.url && h("span", { class: "note", dir: "auto" }, ` ${node.url}`));
  return [self, h("dl", { class: "figures" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))].filter(Boolean);
}

/** This node in the middle, its peers around it; who is down has a broken line. A picture: the table says the same. */
function map(node, peers) {
  const shown = peers.slice(0, MOST_DRAWN);
  const [width, height, middle] = [420, 300, [210, 150]];
  const [wide, high] = shown.length > NAMED ? [168, 128] : [118, 112];
  const most = Math.max(1, ...shown.map((one) => (one.answers_from_it || 0) + (one.answers_to_it || 0)));
  const up = peers.filter((one) => one.up).length;
  const drawn = s("svg", { class: "chart map", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `This node and ${plural(peers.length, "peer")}, ${count(up)} of them up` });
  const dots = shown.map((one, i) => {
    const angle = (2 * Math.PI * i) / shown.length - Math.PI / 2;
    const [x, y] = [middle[0] + wide * Math.cos(angle), middle[1] + high * Math.sin(angle)];
    const answers = (one.answers_from_it || 0) + (one.answers_to_it || 0);
    drawn.append(s("line", { class: one.up ? "edge" : "edge down", x1: middle[0], y1: middle[1], x2: x, y2: y, "stroke-width": 1 + 4 * Math.sqrt(answers / most) }));
    const side = Math.abs(Math.cos(angle)) < 0.25 ? "middle" : Math.cos(angle) > 0 ? "start" : "end";
    const lift = side === "middle" ? (Math.sin(angle) > 0 ? 22 : -13) : 4;
    const name = one.name.length > 14 ? `${one.name.slice(0, 13)}…` : one.name;
    const text = shown.length <= NAMED && s("text", { class: "name", x: x + { start: 12, middle: 0, end: -12 }[side], y: y + lift, "text-anchor": side }, name);
    return s("g", {}, s("title", {}, `${one.name}: ${one.up ? "up" : "down"}`), s("circle", { class: one.up ? "peer" : "peer down", cx: x, cy: y, r: shown.length > NAMED ? 5 : 7 }), text);
  });
  drawn.append(...dots, s("circle", { class: "self", cx: middle[0], cy: middle[1], r: 13 }));
  const rest = peers.length - shown.length;
  return h("figure", {}, drawn, h("figcaption", { class: "note" }, rest > 0 ? `The first ${count(shown.length)} of ${plural(peers.length, "peer")}. ` : "", "The thicker a line, the more answers; broken: not up now."));
}

/** What it did, in words. */
function deeds(of = {}) {
  const words = Object.entries(of).filter(([, n]) => n > 0).map(([deed, n]) => `${count(n)} ${deed}`);
  return words.join(", ") || "none yet";
}

const bad = (of = {}) => Object.entries(of).reduce((sum, [deed, n]) => sum + (deed === "kept" ? 0 : n), 0);

const PEERS = [
  { name: "name", label: "Peer", value: (one) => one.name, cell: (one) => [cut(one.name, "strong"), cut(one.id, "note id")] },
  { name: "up", label: "State", value: (one) => (one.up ? 0 : 1), cell: (one) => badge(one.up ? "up" : "down", one.up ? "ok" : "bad") },
  { name: "transport", label: "By", value: (one) => one.transport, cell: (one) => ({ zenoh: "Zenoh, joined", https: "HTTPS, federated" })[one.transport] ?? one.transport },
  { name: "experts", label: "Experts", num: true, value: (one) => one.experts, cell: (one) => count(one.experts) },
  { name: "ttft", label: "First token", num: true, hint: "Seconds to the first token: the median of a week", value: (one) => one.ttft_p50_s, cell: (one) => duration(one.ttft_p50_s) },
  { name: "uptime", label: "Up", num: true, hint: "Share of calls that did not fail", value: (one) => one.uptime, cell: (one) => percent(one.uptime) },
  { name: "trust", label: "Trust", num: true, hint: "How often its answers are expected to be right, by what was measured here and what others say", value: (one) => one.trust, cell: (one) => percent(one.trust) },
  { name: "deeds", label: "Deeds", hint: "What became of its answers: kept, or cut, garbled, unsigned, overcharged", value: (one) => -bad(one.deeds), cell: (one) => h("span", { class: bad(one.deeds) ? "warned" : "" }, deeds(one.deeds)) },
  { name: "answers", label: "Answers from, to", num: true, value: (one) => one.answers_from_it + one.answers_to_it, cell: (one) => `${count(one.answers_from_it)}, ${count(one.answers_to_it)}` },
  { name: "to", label: "Owed to it", num: true, value: (one) => one.owed_to_it_usd, cell: (one) => usd(one.owed_to_it_usd) },
  { name: "by", label: "Owed by it", num: true, value: (one) => one.owed_by_it_usd, cell: (one) => usd(one.owed_by_it_usd) },
];

const RECEIPTS = [
  { name: "at", label: "At", cell: (one) => when(one.at_utc) },
  { name: "peer", label: "Peer", cell: (one) => cut(one.named) },
  { name: "role", label: "This node", cell: (one) => ({ asked: "asked", answered: "answered" })[one.role] ?? one.role },
  { name: "purpose", label: "For", cell: (one) => cut(one.purpose || "not said") },
  { name: "tokens", label: "Tokens read, written", num: true, cell: (one) => `${figure(one.prompt_tokens)}, ${figure(one.completion_tokens)}` },
  { name: "price", label: "Price", num: true, cell: (one) => usd(one.price_usd) },
  { name: "signed", label: "Signed by", cell: (one) => (one.countersigned ? badge("both", "ok") : badge("who answered", "warn")) },
  { name: "request", label: "Request", cell: (one) => h("code", { class: "cut id" }, one.request_id) },
];

/** What is drawn as a frontier, from live traffic or from a file of `manyminds eval DIR --json`. Pure. */

import { exact } from "./parts.js";
import { count, plural, usd } from "./ui.js";

export const MOST_BYTES = 8_000_000;
const MOST_POINTS = 2_000;
const POLICIES = ["fast", "cheap", "auto", "max"];
const AGAIN = "Write it anew with: manyminds eval DIR --json > RESULT.json";

const number = (value) => typeof value === "number" && Number.isFinite(value);
const share = (value) => number(value) && value >= 0 && value <= 1;
const object = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** A point: `name`, `kind` (model, network), `accuracy`, `cost` of 1,000 questions, both or null; `words`; `of`. */
function point(name, kind, accuracy, cost, more = {}) {
  const price = cost === null ? "at a cost that is not known" : cost === 0 ? "free" : `at ${usd(cost)} per 1,000`;
  const right = accuracy === null ? "not graded yet" : `${exact(accuracy)} right${more.of ? ` of ${count(more.of)}` : ""}`;
  return { name, kind, accuracy, cost, ...more, words: `${kind === "network" ? `manyminds ${name}` : name}: ${right}, ${price}` };
}

/** Of a week of requests. */
export function fromTraffic(live) {
  const cost = (value) => (number(value) ? value : null);
  const models = (live.experts ?? []).map((one) => point(one.name, "model", one.accuracy, cost(one.cost_usd_per_1k), { of: one.graded, claimed: one.claimed_accuracy, asked: one.calls }));
  const policies = (live.policies ?? []).map((one) => point(one.policy, "network", one.accuracy, cost(one.cost_usd_per_1k), { of: one.graded, asked: one.requests }));
  return { points: [...policies, ...models], oracle: null, about: "" };
}

/** Of a file's text. Throws an Error that says what is wrong with it, and what to do. */
export function fromFile(name, text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error(`${name} is not JSON. ${AGAIN}`);
  }
  if (!object(found)) throw new Error(`${name} holds no result of an evaluation. ${AGAIN}`);
  if (!Array.isArray(found.frontier)) {
    const which = "epsilons" in found || "private" in found ? "a result of --private, which has no frontier" : "no result of an evaluation: it has no frontier";
    throw new Error(`${name} is ${which}. ${AGAIN}`);
  }
  if (found.frontier.length > MOST_POINTS) throw new Error(`${name} has ${count(found.frontier.length)} points, more than the ${count(MOST_POINTS)} that can be drawn.`);
  const points = found.frontier.map((entry, i) => checked(entry, `frontier[${i}] in ${name}`));
  for (const policy of POLICIES) {
    if (object(found[policy]) && !points.some((one) => one.kind === "network" && one.name === policy)) points.push(checked({ ...found[policy], name: policy, kind: "network" }, `${policy} in ${name}`));
  }
  if (!points.length) throw new Error(`The frontier in ${name} is empty. ${AGAIN}`);
  const of = number(found.n_test) ? found.n_test : 0;
  for (const one of points) Object.assign(one, point(one.name, one.kind, one.accuracy, one.cost, { of }));
  const oracle = found.baselines?.oracle?.accuracy;
  return { points, oracle: share(oracle) ? oracle : null, about: about(found, name), gains: gains(found) };
}

function checked(entry, where) {
  if (!object(entry) || typeof entry.name !== "string" || !entry.name) throw new Error(`${where} has no name. ${AGAIN}`);
  if (!share(entry.accuracy)) throw new Error(`${where} (${entry.name.slice(0, 60)}): accuracy is ${JSON.stringify(entry.accuracy)?.slice(0, 40)}, not a share from 0 to 1. ${AGAIN}`);
  const cost = entry.cost_usd_per_1k ?? null;
  if (cost !== null && !(number(cost) && cost >= 0)) throw new Error(`${where} (${entry.name.slice(0, 60)}): cost_usd_per_1k is ${JSON.stringify(cost).slice(0, 40)}, not dollars. ${AGAIN}`);
  const network = entry.kind === "network" || (entry.kind === undefined && POLICIES.includes(entry.name));
  return { name: entry.name.slice(0, 200), kind: network ? "network" : "model", accuracy: entry.accuracy, cost };
}

function about(found, name) {
  const set = typeof found.set === "string" ? found.set.slice(0, 100) : name;
  const category = typeof found.category === "string" ? `, ${found.category.slice(0, 100)} only` : "";
  const models = number(found.models) ? `: ${plural(found.models, "model")}` : "";
  const questions = number(found.n_test) ? `, ${plural(found.n_test, "test question")}` : "";
  return `${set}${category}${models}${questions}.`;
}

/** What each policy gains over the best single model, with its interval. */
function gains(found) {
  const best = object(found.best_single) ? String(found.best_single.model ?? "").slice(0, 200) : "";
  if (!best) return [];
  const points = (x) => `${x < 0 ? "−" : "+"}${Math.abs(100 * x).toFixed(1)}`;
  return POLICIES.filter((policy) => object(found[policy]) && number(found[policy].gain)).map((policy) => {
    const { gain, gain_ci95: between, cost_ratio: ratio } = found[policy];
    const interval = Array.isArray(between) && between.length === 2 && between.every(number) ? ` [${between.map(points).join(", ")}]` : "";
    return { policy, best, gain: `${points(gain)} points${interval}`, ratio: number(ratio) ? `${Number(ratio.toPrecision(2))} times its cost` : "" };
  });
}

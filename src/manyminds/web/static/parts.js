/** What the views share: data that stays true, tables, drawings. Knows no view and no endpoint. */

import { announce, failure, h } from "./ui.js";

// --- figures ---------------------------------------------------------------------------------------

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** 0.9067 -> "90.7%" */
export const exact = (share) => (known(share) ? `${(100 * share).toFixed(1)}%` : "–");

/** To three digits that count: "1,234", "0.0123", "12.3". */
export function figure(value) {
  if (!known(value)) return "–";
  const text = Math.abs(value) < 1e-9 ? "0" : Number(value.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 9 });
  return text.replace("-", "−");
}

/** "734", "12.3k", "2.24M" */
export const short = (value) => (known(value) ? value.toLocaleString("en-US", { notation: "compact", maximumSignificantDigits: 3 }) : "–");

/** A time of the node's (UTC), as the reader's clock has it; the day too, where that is not today. */
export function when(utc) {
  const at = new Date(/(Z|[+-]\d\d:\d\d)$/.test(utc) ? utc : `${utc}Z`);
  if (Number.isNaN(at.getTime())) return h("span", {}, utc ? String(utc) : "–");
  const today = at.toDateString() === new Date().toDateString();
  const day = today ? {} : { month: "short", day: "numeric" };
  const second = today ? { second: "2-digit" } : {};
  const text = at.toLocaleString("en-GB", { ...day, hour: "2-digit", minute: "2-digit", ...second });
  return h("time", { datetime: at.toISOString(), title: `${at.toISOString().slice(0, 19).replace("T", " ")} UTC` }, text);
}

/** Words in a row: "a", "a and b", "a, b and c". */
export const listed = (words) => [words.slice(0, -1).join(", "), ...words.slice(-1)].filter(Boolean).join(" and ");

/** Text on one line, and all of it where a pointer rests. */
export const cut = (text, className = "") => h("span", { class: `cut ${className}`, title: text, dir: "auto" }, text);

/** A share of a limit: how full, as a meter, with both figures in words. */
export function filled(used, limit, words) {
  const share = limit > 0 ? used / limit : 1;
  const tone = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "ok";
  const bar = h("span", { class: `gauge ${tone}`, role: "meter", "aria-label": words, "aria-valuemin": "0", "aria-valuemax": "100" }, h("span"));
  const percent = Math.round(100 * Math.max(0, Math.min(1, share)));
  bar.setAttribute("aria-valuenow", percent);
  bar.setAttribute("aria-valuetext", `${percent}%: ${words}`);
  bar.style.setProperty("--share", percent / 100);
  return h("span", { class: "gauged" }, bar, h("span", { class: "num" }, words));
}

// --- what stays true -------------------------------------------------------------------------------

const LEAST_MS = 2_000; // between two times of asking
const SETTLED_MS = 400; // after an event: what it is about is being written down
const AGAIN_MS = 6_000; // after an event: until then the node may say what it said before

/** Shows what an endpoint says, and asks again when the node's news say that it may have changed.
 *
 * `draw(data, root)` is called with new data only; whatever it replaces, focus and scroll come back.
 * The first time there is a word while it loads; a failure later leaves what is shown, and says so above.
 * @returns {{refresh: () => Promise<void>, redraw: () => void, stop: () => void}}
 */
export function follow(api, path, root, draw) {
  const gone = new AbortController();
  const told = h("div", { class: "told" });
  const body = h("div", { class: "body", "aria-busy": "true" }, h("p", { class: "empty" }, "Loading…"));
  let shown = null; // as JSON
  let data = null;
  let last = 0;
  let timer = 0;
  let later = 0;
  let asking = false;
  let again = false;
  let requests = null;
  root.append(told, body);

  function redraw() {
    if (data === null || gone.signal.aborted) return;
    if (body.querySelector("button:active")) return void setTimeout(redraw, 200); // a click is under way
    holding(body, () => draw(data, body));
  }

  async function refresh() {
    clearTimeout(timer);
    timer = 0;
    if (asking) return void (again = true);
    asking = true;
    last = Date.now();
    try {
      const found = await api.get(path, { signal: gone.signal });
      told.replaceChildren();
      const json = JSON.stringify(found);
      if (json !== shown) {
        if (shown === null) body.replaceChildren();
        [shown, data] = [json, found];
        redraw();
      }
    } catch (error) {
      if (!gone.signal.aborted) failed(error);
    } finally {
      asking = false;
      body.setAttribute("aria-busy", "false");
      if (again) due();
      again = false;
    }
  }

  function failed(error) {
    if (shown === null) body.replaceChildren();
    const retry = h("button", { type: "button", class: "small", onclick: refresh }, "Try again");
    const words = failure(shown === null ? error : { message: `This may be out of date. ${error.message}` });
    words.append(" ", retry);
    told.replaceChildren(words);
  }

  function due() {
    if (asking) again = true;
    else if (!timer && !document.hidden && !gone.signal.aborted) {
      timer = setTimeout(refresh, Math.max(SETTLED_MS, last + LEAST_MS - Date.now()));
    }
  }

  /** Something happened: asks soon, and once more when the node has surely looked again. */
  function heard() {
    due();
    clearTimeout(later);
    later = setTimeout(due, AGAIN_MS);
  }

  const on = (target, name, handler) => target.addEventListener(name, handler, { signal: gone.signal });
  on(api.live, "request", heard);
  on(api.live, "changed", heard);
  on(api.live, "up", ({ detail }) => detail?.again && heard());
  on(api.live, "traffic", ({ detail }) => {
    if (requests !== null && detail.requests !== requests) heard(); // private requests are told as a count alone
    requests = detail.requests;
  });
  on(document, "visibilitychange", due);
  refresh();
  return { refresh, redraw, stop: () => (clearTimeout(timer), clearTimeout(later), gone.abort()) };
}

/** Runs `change`; then what had the focus has it again, by `data-key`, and what was scrolled still is. */
export function holding(root, change) {
  const active = root.contains(document.activeElement) ? document.activeElement : null;
  const key = active?.dataset.key;
  const scrolled = [...root.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
  const top = scrollY;
  change();
  [...root.querySelectorAll(".scroll")].forEach((one, i) => {
    if (scrolled[i]) [one.scrollLeft, one.scrollTop] = scrolled[i];
  });
  if (scrollY !== top) scrollTo({ top, behavior: "instant" });
  if (!active || document.activeElement === active) return;
  const heir = active.isConnected ? active : key && root.querySelector(`[data-key="${CSS.escape(key)}"]`);
  heir?.focus({ preventScroll: true });
}

/** Makes the children of `parent` those of `items`: what is as it was stays the same element.
 * `key(item)` names it, `sign(item)` is all that it shows, `make(item)` its element.
 */
export function keyed(parent, items, key, sign, make) {
  const before = (parent.keyed ??= new Map());
  const now = new Map();
  for (const item of items) {
    const name = key(item);
    const signature = sign(item);
    const old = before.get(name);
    now.set(name, old?.signature === signature ? old : { signature, element: make(item) });
  }
  for (const [name, { element }] of before) if (now.get(name)?.element !== element) element.remove();
  let place = parent.firstChild;
  for (const { element } of now.values()) {
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
  }
  parent.keyed = now;
}

// --- tables ----------------------------------------------------------------------------------------

/** A table whose columns sort it; on a narrow screen each row is a card.
 *
 * A column: `name`, `label`, `cell(row)`, and `value(row)` where it sorts; `num` sets figures to the right.
 * `details(row)`, where given, is what a row opens. `sort` is a column's name, with "-" before it to fall.
 * @returns {{element: HTMLElement, update: (rows: object[]) => void}}
 */
export function table({ label, columns, key, details = null, sort = "" }) {
  const open = new Set();
  let rows = [];
  let [by, falls] = [sort.replace("-", ""), sort.startsWith("-")];
  const sorting = columns.filter((column) => column.value);
  const body = h("tbody");
  const heads = new Map(columns.map((column) => [column.name, head(column)]));
  const options = sorting.map((column) => h("option", { value: column.name }, column.label));
  const chosen = h("select", { onchange: () => sortBy(chosen.value, falls) }, options);
  const way = h("button", { type: "button", class: "small", onclick: () => sortBy(by, !falls) });
  const sorter = h("div", { class: "sorter row" }, h("label", {}, "Sort by ", chosen), way);
  const rest = h("p", { class: "note" });
  const whole = h("table", { class: "stacks" }, h("caption", { class: "hidden" }, label), h("thead", {}, h("tr", {}, [...heads.values()])), body);
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, whole);
  const element = h("div", { class: "tabled" }, sorting.length > 1 && sorter, scroll, rest);

  function head(column) {
    const props = { class: column.num ? "num" : "", scope: "col", title: column.hint };
    if (!column.value) return h("th", props, column.label || h("span", { class: "hidden" }, "Actions"));
    const press = () => sortBy(column.name, by === column.name ? !falls : Boolean(column.num));
    return h("th", props, h("button", { type: "button", class: "sort", onclick: press }, column.label));
  }

  function sortBy(name, down) {
    [by, falls] = [name, down];
    update(rows);
    announce(`Sorted by ${columns.find((column) => column.name === by).label}, ${falls ? "highest" : "lowest"} first.`);
  }

  function ordered() {
    const { value } = sorting.find((column) => column.name === by) ?? {};
    if (!value) return rows;
    const nothing = (x) => x === null || x === undefined || Number.isNaN(x);
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    return rows
      .map((row) => [value(row), row])
      .sort(([a], [b]) => nothing(a) - nothing(b) || (nothing(a) ? 0 : compare(a, b) * (falls ? -1 : 1)))
      .map(([, row]) => row);
  }

  function line(row) {
    const name = key(row);
    const shown = open.has(name);
    const cells = columns.map((column, i) => {
      const td = h(i === 0 ? "th" : "td", { class: column.num ? "num" : "", scope: i === 0 ? "row" : null, dataset: { label: column.label } });
      const inside = column.cell(row);
      if (i === 0 && details) td.append(opener(row, name, shown, inside));
      else td.append(...[inside].flat().filter((one) => one !== null && one !== undefined && one !== false));
      return td;
    });
    const first = h("tr", { class: shown ? "opened" : "" }, cells);
    if (!shown) return first;
    return [first, h("tr", { class: "details" }, h("td", { colSpan: columns.length }, details(row)))];
  }

  function opener(row, name, shown, inside) {
    const press = () => {
      if (!open.delete(name)) open.add(name);
      holding(body, () => update(rows));
    };
    return h("button", { type: "button", class: "opener", "aria-expanded": String(shown), onclick: press, dataset: { key: `open ${name}` } }, inside);
  }

  function update(next) {
    rows = next;
    for (const [name, th] of heads) {
      if (name === by) th.setAttribute("aria-sort", falls ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    chosen.value = by;
    way.textContent = falls ? "Highest first" : "Lowest first";
    const parts = ordered().flatMap((row) => (open.has(key(row)) ? [[row, 0], [row, 1]] : [[row, 0]]));
    const made = new Map();
    const one = ([row, part]) => {
      if (!made.has(row)) made.set(row, [line(row)].flat());
      return made.get(row)[part];
    };
    keyed(body, parts, ([row, part]) => `${key(row)} ${part}`, ([row, part]) => `${open.has(key(row))}${part}${JSON.stringify(row)}`, one);
  }

  return { element, update, rest };
}

/** What is said where there is nothing to show: a heading, and what to do. */
export const nothing = (title, ...words) => h("div", { class: "empty card" }, h("p", { class: "strong" }, title), ...words.map((one) => h("p", {}, one)));

/** Buttons of which one is pressed: `choices` are [value, label]; `onChange(value)`. */
export function choice(label, choices, value, onChange) {
  const buttons = choices.map(([name, text]) => {
    const press = () => (mark(name), onChange(name));
    return h("button", { type: "button", class: "small", "aria-pressed": String(name === value), onclick: press, dataset: { value: name } }, text);
  });
  const mark = (name) => buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.value === name)));
  return Object.assign(h("div", { class: "choice", role: "group", "aria-label": label }, buttons), { mark });
}

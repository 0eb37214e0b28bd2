/** Drawings as SVG, made element by element: scales, axes, bars, a plot of points. Knows no endpoint. */

import { h } from "./ui.js";

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element: `s("circle", { r: 4, class: "dot" }, child)`. Text is always text. */
export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Round numbers from at most `low` to at least `high`, about `n` of them. */
export function ticks(low, high, n = 5) {
  const span = Math.max(high - low, 1e-12);
  const rough = 10 ** Math.floor(Math.log10(span / n));
  const step = [1, 2, 5, 10].map((by) => by * rough).find((by) => span / by <= n) ?? 10 * rough;
  const found = [];
  for (let i = Math.floor(low / step + 1e-9); i * step < high + step * (1 - 1e-9) && found.length < 50; i += 1) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

/** Marks on a scale of factors from at most `low` to at least `high`: 1, 2 and 5 times powers of ten. */
export function factors(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low) + 1e-9); power <= Math.log10(high) + 1; power += 1) {
    for (const by of [1, 2, 5]) found.push(Number((by * 10 ** power).toPrecision(6)));
  }
  const first = found.findLastIndex((mark) => mark <= low * (1 + 1e-9));
  return found.slice(first, found.findIndex((mark) => mark >= high * (1 - 1e-9)) + 1);
}

/** Calls `draw(width)` with the width of `element` in pixels, now and whenever that changes. Returns what ends it. */
export function fitted(element, draw) {
  let width = 0;
  const observer = new ResizeObserver(() => {
    const now = Math.round(element.clientWidth);
    if (now && now !== width) draw((width = now));
  });
  observer.observe(element);
  return () => observer.disconnect();
}

/** Bars side by side, one for each of `rows`: a picture; the same figures stand in a table beside it.
 * @param {{rows: object[], value: Function, label: Function, words: Function, format: Function, about: string, width: number}} options
 */
export function bars({ rows, value, label, words, format, about, width }) {
  const height = 190;
  const area = { left: 62, right: 8, top: 10, bottom: 26 };
  const [inner, tall] = [width - area.left - area.right, height - area.top - area.bottom];
  const marks = ticks(0, Math.max(...rows.map(value)) || 1, 4);
  const y = (x) => area.top + tall * (1 - x / marks.at(-1));
  const step = inner / rows.length;
  const thick = Math.max(1, Math.min(36, step * 0.72));
  const every = Math.ceil(rows.length / Math.max(1, Math.floor(inner / 64)));
  const drawn = s("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": about });
  for (const mark of marks) {
    drawn.append(s("line", { class: "grid", x1: area.left, x2: width - area.right, y1: y(mark), y2: y(mark) }));
    drawn.append(s("text", { class: "tick", x: area.left - 8, y: y(mark) + 4, "text-anchor": "end" }, format(mark)));
  }
  rows.forEach((row, i) => {
    const middle = area.left + step * (i + 0.5);
    const top = Math.min(y(value(row)), y(0) - (value(row) > 0 ? 1.5 : 0));
    const bar = s("rect", { class: "bar", x: middle - thick / 2, y: top, width: thick, height: Math.max(0, y(0) - top), rx: Math.min(3, thick / 2) });
    drawn.append(s("g", {}, s("title", {}, words(row)), s("rect", { class: "ghost", x: middle - step / 2, y: area.top, width: step, height: tall }), bar));
    if ((rows.length - 1 - i) % every === 0) drawn.append(s("text", { class: "tick", x: middle, y: height - 8, "text-anchor": "middle" }, label(row)));
  });
  return drawn;
}

// --- points ----------------------------------------------------------------------------------------

/** Who costs no more than anybody as accurate: the points that nobody beats, cheapest first. */
export function undominated(points) {
  const found = [];
  for (const point of [...points].sort((a, b) => a.cost - b.cost || b.accuracy - a.accuracy)) {
    if (!found.length || point.accuracy > found.at(-1).accuracy) found.push(point);
  }
  return found;
}

/** Cost from left to right, each factor of ten as wide, what is free at a place of its own; accuracy upwards. */
function scales(points, oracle, width, height) {
  const costs = points.map((point) => point.cost).filter((cost) => cost > 0);
  const free = points.some((point) => point.cost === 0);
  const area = { left: 50, right: 26, top: 18, bottom: 46 };
  const gutter = free ? Math.min(72, width / 6) : 0;
  const [least, most] = costs.length ? [Math.min(...costs), Math.max(...costs)] : [0.01, 1];
  const marked = factors(least === most ? least / 2 : least, least === most ? most * 2 : most);
  const [low, high] = [Math.log10(marked[0]), Math.log10(marked.at(-1))];
  const [from, to] = [area.left + gutter, width - area.right];
  const x = (cost) => (cost > 0 ? from + ((Math.log10(cost) - low) / (high - low || 1)) * (to - from) : area.left + gutter / 2 - 4);
  const room = Math.max(3, Math.floor((to - from) / 64));
  const ten = (tick) => Math.abs(Math.log10(tick) - Math.round(Math.log10(tick))) < 1e-9;
  const costTicks = marked.length <= room ? marked : marked.filter(ten);
  const shares = [...points.map((point) => point.accuracy), ...(oracle === null ? [] : [oracle])];
  const pad = Math.max(0.01, (Math.max(...shares) - Math.min(...shares)) * 0.05);
  const shareTicks = ticks(Math.max(0, Math.min(...shares) - pad), Math.min(1, Math.max(...shares) + pad), 6);
  const [bottom, top] = [shareTicks[0], Math.min(1, shareTicks.at(-1))];
  const y = (share) => height - area.bottom - ((share - bottom) / (top - bottom || 1)) * (height - area.top - area.bottom);
  return { x, y, area, from, to, free, costTicks, shareTicks: shareTicks.filter((tick) => tick <= top + 1e-9), costs };
}

/** Accuracy against cost. A point: `name`, `kind` (model, network), `accuracy`, `cost`, `words`.
 *
 * One stop for the Tab key; arrow keys go from point to point: right and left by cost, up and down by accuracy.
 * @returns {HTMLElement}
 */
export function scatter({ points, oracle = null, format, width, about }) {
  const height = Math.round(Math.max(300, Math.min(520, width * 0.52)));
  const { x, y, area, from, to, free, costTicks, shareTicks, costs } = scales(points, oracle, width, height);
  const drawn = s("svg", { class: "chart scatter", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": about });
  for (const tick of shareTicks) {
    drawn.append(s("line", { class: "grid", x1: area.left, x2: to, y1: y(tick), y2: y(tick) }));
    drawn.append(s("text", { class: "tick", x: area.left - 8, y: y(tick) + 4, "text-anchor": "end" }, `${Number((100 * tick).toFixed(1))}%`));
  }
  const base = height - area.bottom;
  const foot = (at, text) => [s("line", { class: "grid", x1: at, x2: at, y1: area.top, y2: base }), s("text", { class: "tick", x: at, y: base + 18, "text-anchor": "middle" }, text)];
  if (costs.length) for (const tick of costTicks) drawn.append(...foot(x(tick), format(tick)));
  if (free) drawn.append(...foot(x(0), "free"), s("line", { class: "break", x1: from - 9, x2: from - 9, y1: area.top, y2: base }));
  drawn.append(s("text", { class: "axis", x: (from + to) / 2, y: height - 8, "text-anchor": "middle" }, "cost of 1,000 questions, US dollars"));
  if (oracle !== null) {
    drawn.append(s("line", { class: "oracle", x1: area.left, x2: to, y1: y(oracle), y2: y(oracle) }));
    drawn.append(s("text", { class: "tick", x: to, y: y(oracle) - 6, "text-anchor": "end" }, "right wherever any model is right"));
  }
  const singles = undominated(points.filter((point) => point.kind === "model"));
  const network = points.filter((point) => point.kind === "network").sort((a, b) => a.cost - b.cost || a.accuracy - b.accuracy);
  if (singles.length > 1) {
    const stair = singles.map((point, i) => (i ? `H${x(point.cost)}V${y(point.accuracy)}` : `M${x(point.cost)},${y(point.accuracy)}`));
    drawn.append(s("path", { class: "stair", d: `${stair.join("")}H${to}` }));
  }
  if (network.length > 1) drawn.append(s("path", { class: "line", d: `M${network.map((point) => `${x(point.cost)},${y(point.accuracy)}`).join("L")}` }));
  const best = new Set([...network, ...singles]);
  const placed = [...points].sort((a, b) => best.has(a) - best.has(b) || (a.kind === "network") - (b.kind === "network"));
  const tip = h("div", { class: "tip", "aria-hidden": "true", hidden: true });
  const marks = placed.map((point) => mark(point, x(point.cost), y(point.accuracy), best.has(point)));
  drawn.append(...marks.map((one) => one.element), ...labels(marks, [...network, ...singles.reverse()], area, width, height));
  const frame = h("div", { class: "plot" }, drawn, tip);
  stepping(drawn, marks, tip, width);
  return frame;
}

function mark(point, cx, cy, good) {
  const shape = point.kind === "network" ? s("rect", { x: cx - 6, y: cy - 6, width: 12, height: 12, transform: `rotate(45 ${cx} ${cy})`, rx: 2 }) : s("circle", { cx, cy, r: good ? 5.5 : 4.5 });
  const target = s("circle", { class: "ghost", cx, cy, r: 12 });
  const attributes = { class: `point ${point.kind}${good ? " good" : ""}`, role: "img", "aria-label": point.words, tabindex: -1 };
  return { point, cx, cy, element: s("g", attributes, target, shape) };
}

/** Names beside the points that matter, where there is room: to the left above first, where nobody is better for less. */
function labels(marks, wanted, area, width, height) {
  const taken = marks.map(({ cx, cy }) => [cx - 6, cy - 6, cx + 6, cy + 6]);
  const found = [];
  for (const point of wanted) {
    const { cx, cy } = marks.find((one) => one.point === point);
    const text = point.name.length > 26 ? `${point.name.slice(0, 25)}…` : point.name;
    const wide = text.length * 6.6 + 4;
    const places = [[cx - 6, cy - 9, "end"], [cx, cy - 11, "middle"], [cx - 11, cy + 4, "end"], [cx + 11, cy + 4, "start"], [cx + 6, cy + 18, "start"]];
    for (const [px, py, anchor] of places) {
      const left = px - { start: 0, middle: wide / 2, end: wide }[anchor];
      const box = [left, py - 11, left + wide, py + 3];
      const inside = box[0] > area.left && box[2] < width && box[1] > 0 && box[3] < height - area.bottom;
      if (!inside || taken.some((one) => one[0] < box[2] && box[0] < one[2] && one[1] < box[3] && box[1] < one[3])) continue;
      taken.push(box);
      found.push(s("text", { class: `name ${point.kind}`, x: px, y: py, "text-anchor": anchor, "aria-hidden": "true" }, text));
      break;
    }
  }
  return found;
}

/** Lets the Tab key reach one point and the arrow keys the others; what is reached is shown in words. */
function stepping(drawn, marks, tip, width) {
  if (!marks.length) return;
  const byCost = [...marks].sort((a, b) => a.cx - b.cx || b.cy - a.cy);
  const byAccuracy = [...marks].sort((a, b) => b.cy - a.cy || a.cx - b.cx);
  let at = byCost[0];
  at.element.setAttribute("tabindex", 0);
  const show = ({ point, cx, cy }) => {
    tip.textContent = point.words;
    tip.hidden = false;
    tip.style.setProperty("left", `${Math.max(0, Math.min(cx - 100, width - 208))}px`);
    tip.style.setProperty("top", `${cy + 16}px`);
  };
  const reach = (one) => {
    at.element.setAttribute("tabindex", -1);
    at = one;
    at.element.setAttribute("tabindex", 0);
    show(at);
  };
  const go = (order, place) => order[Math.max(0, Math.min(order.length - 1, place))].element.focus();
  for (const one of marks) {
    one.element.addEventListener("pointerenter", () => show(one));
    one.element.addEventListener("pointerleave", () => (tip.hidden = true));
    one.element.addEventListener("focus", () => reach(one));
    one.element.addEventListener("blur", () => (tip.hidden = true));
  }
  drawn.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [byCost, 1], ArrowLeft: [byCost, -1], ArrowUp: [byAccuracy, 1], ArrowDown: [byAccuracy, -1] }[event.key];
    if (event.key === "Escape") tip.hidden = true;
    else if (event.key === "Home") go(byCost, 0);
    else if (event.key === "End") go(byCost, byCost.length - 1);
    else if (way) go(way[0], way[0].indexOf(at) + way[1]);
    else return;
    event.preventDefault();
  });
}

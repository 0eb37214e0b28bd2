/** The index as a library: sections, shelves, books and their chapters, and the way of the last request through it. */

import { fitted } from "./chart.js";
import { choice, cut, exact, figure, follow, holding, nothing, when } from "./parts.js";
import { tree } from "./tree.js";
import { squarify } from "./treemap.js";
import { announce, badge, count, h, plural } from "./ui.js";

export const title = "Library";

const MOST_TILES = 240; // drawn inside one tile; the rest is found by going in
const LEAST = { width: 28, height: 24 }; // of a tile that can be pressed
const HEAD = 26; // pixels of a tile's own name

/** @returns {() => void} */
export function mount(root, api) {
  const view = { as: "map", path: [], open: new Set(), width: 0 }; // path: labels of section and shelf, name of a book
  let data = null;
  let unfit = () => {};
  root.append(h("h1", {}, title));
  const about = h("p", { class: "note" });
  const way = h("section", { class: "card way", "aria-label": "The way of the last request" });
  const crumbs = h("nav", { class: "crumbs", "aria-label": "Where you are in the library" });
  const canvas = h("div", { class: "treemap" });
  const shown = h("div", { class: "library" }, canvas);
  const toggle = choice("Show as", [["map", "Map"], ["outline", "Outline"]], view.as, (as) => ((view.as = as), draw()));
  const tools = h("div", { class: "row apart tools" }, crumbs, toggle);
  const live = follow(api, "/v1/admin/library", root, (found, body) => {
    data = found;
    if (!data.sections?.length) {
      unfit();
      return body.replaceChildren(nothing("There is nothing on the shelves yet.", "Experts are put on shelves by what they are good at: give them skills when you add them, or let manyminds train learn from graded answers. Both are done in the Experts view and by the command line."));
    }
    if (!shown.isConnected) {
      body.replaceChildren(about, way, tools, shown);
      unfit();
      unfit = fitted(shown, (width) => ((view.width = width), draw()));
    }
    draw();
  });

  function draw() {
    view.path = standing(data, view.path);
    view.width ||= shown.clientWidth;
    about.textContent = `${plural(data.experts, "expert")}, ${plural(data.vectors, "skill vector")}${data.parameters ? `, ${figure(data.parameters / 1e9)} billion parameters` : ""}. ${data.more ? `The first ${count(data.experts - data.more)} are shown. ` : ""}A tile is as large as the number of books below it.`;
    const walked = marks(data);
    holding(root, () => {
      way.replaceChildren(...told(data.last, find, go));
      crumbs.replaceChildren(...trail(view.path, go));
      crumbs.hidden = view.as === "outline";
      shown.replaceChildren(view.as === "map" ? mapped(data, view, walked, go, canvas) : tree("The library", outline(data, walked), view.open));
    });
  }

  function go(path, focus = true) {
    view.path = path;
    if (view.as === "outline") {
      path.reduce((id, label) => (view.open.add(`${id}${label}/`), `${id}${label}/`), "");
    }
    draw();
    announce(path.length ? path.join(", then ") : "All sections");
    if (!focus) return;
    const target = view.as === "map" ? crumbs.querySelector("[aria-current]") : shown.querySelector(`[data-key="${CSS.escape(`tree ${path.map((label) => `${label}/`).join("")}`)}"]`);
    target?.focus();
  }

  /** Where a book stands, as a path; null where it is on no shelf. */
  function find(name) {
    for (const section of data.sections) {
      for (const shelf of section.shelves) if (shelf.books.some((book) => book.name === name)) return [section.label, shelf.label, name];
    }
    return null;
  }

  return () => {
    live.stop();
    unfit();
  };
}

/** What is still there of a path. */
function standing(data, path) {
  const section = data.sections.find((one) => one.label === path[0]);
  const shelf = section?.shelves.find((one) => one.label === path[1]);
  const book = shelf?.books.find((one) => one.name === path[2]);
  return [section?.label, shelf?.label, book?.name].slice(0, book ? 3 : shelf ? 2 : section ? 1 : 0);
}

// --- the last request ------------------------------------------------------------------------------

/** What the last request made of everybody that it came by: on the shelves of its own section, where the library has such. */
function marks({ last, ...data }) {
  const of = new Map();
  for (const name of last?.considered ?? []) of.set(name, "considered");
  for (const name of last?.asked ?? []) of.set(name, "asked");
  if (last?.answered) of.set(last.answered, "answered");
  const field = last?.section;
  const known = data.sections.some((one) => one.label === field || one.shelves.some((shelf) => shelf.label === field));
  const there = (section, shelf) => !known || field === section || field === shelf;
  return { how: (name, section, shelf) => (there(section, shelf) ? (of.get(name) ?? "") : "") };
}

const TONES = { considered: "", asked: "busy", answered: "ok" };
const mark = (how) => (how ? badge(how, TONES[how]) : null);

/** How far a request came on a shelf or in a section: the farthest of its books. */
function farthest(shelves, walked, section) {
  const found = shelves.flatMap((shelf) => shelf.books.map((book) => walked.how(book.name, section, shelf.label)));
  return ["answered", "asked", "considered"].find((how) => found.includes(how)) ?? "";
}

function told(last, find, go) {
  if (!last) return [h("p", { class: "note" }, "No request was routed since the node began. The way of the next one is shown here.")];
  const name = (one) => {
    const place = find(one);
    return place ? h("button", { type: "button", class: "small quiet", dir: "auto", onclick: () => go(place), dataset: { key: `way ${one}` } }, one) : h("span", { dir: "auto" }, one);
  };
  const step = (label, ...inside) => h("li", {}, h("span", { class: "note" }, label), ...inside);
  const others = last.considered.length;
  return [
    h("div", { class: "row apart" }, h("h2", {}, "The way of the last request"), h("span", { class: "note" }, when(last.at_utc), " ", h("code", {}, last.request_id))),
    h("ol", { class: "steps" },
      step("section", cut(last.section || "not known", "strong")),
      step("considered", h("span", { class: "strong num" }, plural(others, "expert"))),
      step("asked", h("span", { class: "row" }, last.asked.slice(0, 8).map(name), last.asked.length > 8 && `and ${count(last.asked.length - 8)} more`)),
      step("answered", last.answered ? name(last.answered) : h("span", { class: "note" }, "put together from several, or nobody"))),
  ];
}

function trail(path, go) {
  const names = ["All sections", ...path];
  return names.map((label, i) => {
    const here = i === names.length - 1;
    const props = here ? { "aria-current": "location", tabindex: "-1", class: "strong" } : { type: "button", class: "small quiet", onclick: () => go(path.slice(0, i)), dataset: { key: `crumb ${i}` } };
    return h("span", { class: "crumb" }, h(here ? "span" : "button", { ...props, dir: "auto" }, label), !here && h("span", { "aria-hidden": "true" }, "›"));
  });
}

// --- as a map --------------------------------------------------------------------------------------

/** The level that `path` names, with the level below it inside its tiles. */
function mapped(data, view, walked, go, canvas) {
  const [section, shelf, book] = chosen(data, view.path);
  if (book) {
    return h("div", { class: "card" }, reading(book, walked.how(book.name, section.label, shelf.label)));
  }
  const height = Math.round(Math.max(340, Math.min(620, view.width * 0.55)));
  const hue = (label) => `hue-${data.sections.findIndex((one) => one.label === label) % 8}`;
  const tiles = shelf ? shelf.books.map((one) => bookTile(one, view.path, walked)) : section ? section.shelves.map((one) => shelfTile(one, view.path, walked)) : data.sections.map((one) => sectionTile(one, walked));
  canvas.className = `treemap ${section ? hue(section.label) : ""}`;
  canvas.style.setProperty("height", `${height}px`);
  const boxes = squarify(tiles.map((one) => one.size), { x: 0, y: 0, width: view.width, height });
  canvas.replaceChildren(...tiles.map((one, i) => tile(one, boxes[i], section ? "" : hue(one.label), go)));
  const legend = h("p", { class: "legend note" }, "The last request: ", ["considered", "asked", "answered"].map((how) => h("span", { class: "key" }, h("span", { class: `swatch ${how}` }), how)));
  return h("div", {}, canvas, legend);
}

function chosen(data, path) {
  const section = data.sections.find((one) => one.label === path[0]);
  const shelf = section?.shelves.find((one) => one.label === path[1]);
  return [section, shelf, shelf?.books.find((one) => one.name === path[2])];
}

const size = (one) => Math.max(one.size || 0, 1);

function sectionTile(one, walked) {
  const how = farthest(one.shelves, walked, one.label);
  const inside = one.shelves.map((shelf) => ({ label: shelf.label, size: size(shelf), path: [one.label, shelf.label], how: farthest([shelf], walked, one.label), note: plural(shelf.size, "book") }));
  return { label: one.label, size: size(one), path: [one.label], how, note: plural(one.size, "book"), inside };
}

function shelfTile(one, [section], walked) {
  const inside = one.books.map((book) => ({ label: book.name, size: 1, path: [section, one.label, book.name], how: walked.how(book.name, section, one.label), note: book.kind, paused: book.paused }));
  return { label: one.label, size: size(one), path: [section, one.label], how: farthest([one], walked, section), note: plural(one.size, "book"), inside };
}

function bookTile(book, [section, shelf], walked) {
  const best = book.chapters.slice(0, 3).map((one) => one.label).join(", ");
  return { label: book.name, size: 1, path: [section, shelf, book.name], how: walked.how(book.name, section, shelf), note: [book.paused && "paused", book.kind, best].filter(Boolean).join(" · "), paused: book.paused, inside: [] };
}

/** A tile: a button with its name, and below it smaller ones, each a button too where it is large enough. */
function tile(one, box, hue, go) {
  const element = h("div", { class: `tile ${hue} ${one.how} ${one.paused ? "paused" : ""}` });
  put(element, box);
  const words = [one.label, one.note, one.how && `${one.how} by the last request`].filter(Boolean).join(", ");
  const head = h("button", { type: "button", title: words, "aria-label": words, onclick: () => go(one.path), dataset: { key: `tile ${one.path.join("/")}` } }, h("span", { dir: "auto" }, one.label));
  if (box.width > 90 && box.height > 40) head.append(h("span", { class: "note" }, one.note));
  element.append(head);
  const room = { x: 4, y: HEAD, width: box.width - 12, height: box.height - HEAD - 8 };
  if (!one.inside.length || room.width < 40 || room.height < 24) return whole(element);
  const inside = one.inside.slice(0, MOST_TILES);
  const boxes = squarify(inside.map((small) => small.size), room);
  inside.forEach((small, i) => element.append(part(small, boxes[i], go)));
  return element;
}

function whole(element) {
  element.classList.add("whole");
  return element;
}

function part(small, box, go) {
  const pressable = box.width >= LEAST.width && box.height >= LEAST.height;
  const words = [small.label, small.note, small.paused && "paused", small.how && `${small.how} by the last request`].filter(Boolean).join(", ");
  const element = pressable
    ? h("button", { type: "button", title: words, "aria-label": words, onclick: () => go(small.path), dataset: { key: `tile ${small.path.join("/")}` } })
    : h("div", { "aria-hidden": "true", title: words });
  element.className = `part ${small.how} ${small.paused ? "paused" : ""}`;
  if (box.width >= 44 && box.height >= 20) element.append(h("span", { dir: "auto" }, small.label));
  if (box.width >= 90 && box.height >= 44) element.append(h("span", { class: "note" }, small.note));
  put(element, box);
  return element;
}

function put(element, { x, y, width, height }) {
  for (const [name, value] of Object.entries({ left: x, top: y, width, height })) element.style.setProperty(name, `${Math.round(value * 10) / 10}px`);
}

/** One book, opened. */
function reading(book, how) {
  const chapters = book.chapters.map((one) => h("li", {}, chapter(one)));
  const about = [book.kind, book.source !== book.name && `of ${book.source}`].filter(Boolean).join(" ");
  return h("div", {}, h("h2", { dir: "auto" }, book.name, " ", mark(how), book.paused ? badge("paused") : null), h("p", { class: "note" }, about),
    chapters.length ? h("ul", { class: "chapters" }, chapters) : h("p", { class: "note" }, "It has no chapters: nothing was measured in which it is better than others."));
}

function chapter(one) {
  if (!one.asked) return [cut(one.label, "strong"), h("span", { class: "note" }, "by its own words")];
  return [cut(one.label, "strong"), h("span", { class: "num" }, one.right === null ? "–" : `${exact(one.right)} of ${count(one.asked)} right`), h("span", { class: "note num" }, one.peers === null ? "" : `others ${exact(one.peers)}`)];
}

// --- as an outline ---------------------------------------------------------------------------------

function outline(data, walked) {
  const leaf = (one, id) => ({ id, label: one.label, mark: null, children: null, note: one.asked && one.right !== null ? `${exact(one.right)} of ${count(one.asked)} right${one.peers === null ? "" : `, others ${exact(one.peers)}`}` : "" });
  const book = (one, id, section, shelf) => ({ id, label: one.name, note: [one.kind, one.paused && "paused"].filter(Boolean).join(", "), mark: mark(walked.how(one.name, section, shelf)), children: one.chapters.length ? () => one.chapters.map((part, i) => leaf(part, `${id}${i}/`)) : null });
  const shelf = (one, id, section) => ({ id, label: one.label, note: plural(one.size, "book"), mark: mark(farthest([one], walked, section)), children: () => one.books.map((each) => book(each, `${id}${each.name}/`, section, one.label)) });
  return data.sections.map((one) => {
    const id = `${one.label}/`;
    const how = farthest(one.shelves, walked, one.label);
    return { id, label: one.label, note: plural(one.size, "book"), mark: mark(how), children: () => one.shelves.map((each) => shelf(each, `${id}${each.label}/`, one.label)) };
  });
}

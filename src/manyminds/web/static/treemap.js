/** Rectangles in proportion to sizes, as near to squares as can be. Pure: knows no element. */

/** Squarified treemap (Bruls, Huizing & van Wijk 2000).
 * @param {number[]} sizes above 0, in any order
 * @returns {{x: number, y: number, width: number, height: number}[]} one for each size, filling `box`. O(n log n).
 */
export function squarify(sizes, box) {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const scale = total > 0 ? (box.width * box.height) / total : 0;
  const order = sizes.map((size, i) => [size * scale, i]).sort(([a, i], [b, j]) => b - a || i - j);
  const found = new Array(sizes.length);
  let rest = { ...box };
  let row = [];
  for (const item of order) {
    const side = Math.min(rest.width, rest.height);
    if (row.length && worst([...row, item], side) > worst(row, side)) {
      rest = lay(row, rest, found);
      row = [];
    }
    row.push(item);
  }
  if (row.length) lay(row, rest, found);
  return found;
}

/** The ratio of sides, of the longest rectangle in a row along `side`. */
function worst(row, side) {
  const sum = row.reduce((all, [area]) => all + area, 0);
  const square = (side * side) / (sum * sum);
  return Math.max(square * row[0][0], 1 / (square * row.at(-1)[0]));
}

/** Puts a row along the shorter side of `rest`, and returns what is left of that. */
function lay(row, rest, found) {
  const sum = row.reduce((all, [area]) => all + area, 0);
  const across = rest.width >= rest.height;
  const thick = sum / (across ? rest.height : rest.width) || 0;
  let at = across ? rest.y : rest.x;
  for (const [area, i] of row) {
    const long = thick > 0 ? area / thick : 0;
    found[i] = across ? { x: rest.x, y: at, width: thick, height: long } : { x: at, y: rest.y, width: long, height: thick };
    at += long;
  }
  if (across) return { x: rest.x + thick, y: rest.y, width: Math.max(0, rest.width - thick), height: rest.height };
  return { x: rest.x, y: rest.y + thick, width: rest.width, height: Math.max(0, rest.height - thick) };
}

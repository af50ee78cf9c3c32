// Squarified treemap (Bruls, Huizing and van Wijk, 2000): cells as near to squares as they get.

/**
 * @typedef {{x: number, y: number, w: number, h: number}} Rect
 */

/**
 * Divide `rect` into one cell a value; areas are in proportion to the values.
 *
 * @param {number[]} values positive, in falling order
 * @param {Rect} rect
 * @returns {Rect[]} in the order of the values
 */
export function squarify(values, rect) {
  const total = values.reduce((sum, value) => sum + value, 0);
  if (!(total > 0) || rect.w <= 0 || rect.h <= 0) return values.map(() => ({ x: rect.x, y: rect.y, w: 0, h: 0 }));
  const scale = (rect.w * rect.h) / total;
  const areas = values.map((value) => value * scale);
  /** @type {Rect[]} */
  const cells = [];
  let { x, y, w, h } = rect;
  for (let start = 0; start < areas.length; ) {
    const side = Math.min(w, h);
    let end = start;
    let sum = 0;
    let worst = Infinity;
    while (end < areas.length) {
      const nextSum = sum + areas[end];
      const nextWorst = worstRatio(areas[start], areas[end], nextSum, side);
      if (nextWorst > worst) break;
      [sum, worst, end] = [nextSum, nextWorst, end + 1];
    }
    const depth = side > 0 ? sum / side : 0;
    let along = 0;
    for (let i = start; i < end; i += 1) {
      const length = depth > 0 ? areas[i] / depth : 0;
      cells.push(w >= h ? { x, y: y + along, w: depth, h: length } : { x: x + along, y, w: length, h: depth });
      along += length;
    }
    if (w >= h) [x, w] = [x + depth, Math.max(w - depth, 0)];
    else [y, h] = [y + depth, Math.max(h - depth, 0)];
    start = end;
  }
  return cells;
}

/**
 * @param {number} largest @param {number} smallest @param {number} sum @param {number} side
 */
function worstRatio(largest, smallest, sum, side) {
  const square = side * side;
  const sumSquare = sum * sum;
  if (smallest <= 0 || square <= 0) return Infinity;
  return Math.max((square * largest) / sumSquare, sumSquare / (square * smallest));
}

/**
 * @typedef {{symbol: string, sector: string, size: number, number: number}} Item
 * @typedef {{item: Item, rect: Rect}} Cell
 * @typedef {{name: string, rect: Rect, header: number}} Sector
 */

/**
 * Sectors, and in each its symbols.
 *
 * @param {Item[]} items items without a positive size are left out
 * @param {number} width @param {number} height
 * @param {number} headerHeight room for a sector's name, where the sector is large enough
 * @returns {{sectors: Sector[], cells: Cell[]}}
 */
export function layoutMarket(items, width, height, headerHeight) {
  /** @type {Map<string, Item[]>} */
  const groups = new Map();
  for (const item of items) {
    if (!(item.size > 0)) continue;
    const name = item.sector || "Other";
    const group = groups.get(name);
    if (group) group.push(item);
    else groups.set(name, [item]);
  }
  const sum = (/** @type {Item[]} */ group) => group.reduce((total, item) => total + item.size, 0);
  const ordered = [...groups].map(([name, group]) => ({ name, group, total: sum(group) })).sort((a, b) => b.total - a.total);
  const rects = squarify(ordered.map((sector) => sector.total), { x: 0, y: 0, w: width, h: height });
  /** @type {Sector[]} */
  const sectors = [];
  /** @type {Cell[]} */
  const cells = [];
  ordered.forEach(({ name, group }, index) => {
    const rect = rects[index];
    const isOnly = ordered.length === 1;
    const header = !isOnly && rect.w >= 60 && rect.h >= headerHeight * 3 ? headerHeight : 0;
    sectors.push({ name, rect, header });
    group.sort((a, b) => b.size - a.size || a.symbol.localeCompare(b.symbol));
    const inner = { x: rect.x + 1, y: rect.y + header, w: rect.w - 2, h: rect.h - header - 1 };
    const places = squarify(group.map((item) => item.size), inner);
    group.forEach((item, i) => cells.push({ item, rect: places[i] }));
  });
  return { sectors, cells };
}

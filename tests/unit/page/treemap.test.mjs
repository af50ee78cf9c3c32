import assert from "node:assert/strict";
import { test } from "node:test";
import { changeColor, fittingLimit, LIMITS } from "../../../src/tickhouse/dashboard/static/model/colors.js";
import { layoutMarket, squarify } from "../../../src/tickhouse/dashboard/static/model/treemap.js";

let seed = 7;
const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
const near = (a, b, tolerance = 1e-6) => Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(b));

test("areas are in proportion, cells fill the rectangle and do not overlap", () => {
  for (let round = 0; round < 50; round += 1) {
    const values = Array.from({ length: 1 + Math.floor(random() * 80) }, () => random() ** 4 + 1e-4).sort((a, b) => b - a);
    const rect = { x: 3, y: 5, w: 20 + random() * 900, h: 20 + random() * 600 };
    const cells = squarify(values, rect);
    const total = values.reduce((sum, value) => sum + value, 0);
    assert.equal(cells.length, values.length);
    cells.forEach((cell, i) => {
      assert.ok(near(cell.w * cell.h, (values[i] / total) * rect.w * rect.h, 1e-4));
      assert.ok(cell.x >= rect.x - 1e-6 && cell.x + cell.w <= rect.x + rect.w + 1e-6);
      assert.ok(cell.y >= rect.y - 1e-6 && cell.y + cell.h <= rect.y + rect.h + 1e-6);
      for (const other of cells.slice(i + 1)) {
        const isApart = cell.x + cell.w <= other.x + 1e-6 || other.x + other.w <= cell.x + 1e-6 || cell.y + cell.h <= other.y + 1e-6 || other.y + other.h <= cell.y + 1e-6;
        assert.ok(isApart);
      }
    });
  }
});
test("nothing to show, or nowhere to show it, gives empty cells and no error", () => {
  assert.deepEqual(squarify([], { x: 0, y: 0, w: 10, h: 10 }), []);
  assert.deepEqual(squarify([1, 1], { x: 0, y: 0, w: 0, h: 10 }).map((cell) => cell.w), [0, 0]);
  assert.deepEqual(layoutMarket([], 100, 100, 10), { sectors: [], cells: [] });
});
test("each symbol lies inside its sector; those without a size are left out", () => {
  const items = Array.from({ length: 200 }, (_, number) => ({ symbol: `S${number}`, sector: `Sector ${number % 7}`, size: number === 5 ? 0 : random() * 100 + 1, number }));
  const { sectors, cells } = layoutMarket(items, 800, 500, 17);
  assert.equal(cells.length, 199);
  for (const { item, rect } of cells) {
    const { rect: around, header } = sectors.find(({ name }) => name === item.sector);
    assert.ok(rect.x >= around.x && rect.y >= around.y + header - 1e-6 && rect.x + rect.w <= around.x + around.w + 1e-6 && rect.y + rect.h <= around.y + around.h + 1e-6);
  }
});
test("colours go from red over grey to green and stop at the limit", () => {
  assert.equal(changeColor(9, 3), changeColor(3, 3));
  assert.equal(changeColor(-9, 3), changeColor(-3, 3));
  assert.equal(new Set([-3, -1, 0, 1, 3, null].map((change) => changeColor(change, 3))).size, 6);
});
test("the colour scale fits the market and does not flicker between two steps", () => {
  assert.equal(fittingLimit([], 0.3), 3);
  assert.equal(fittingLimit([null, 0.05, -0.1], 3), 0.15);
  assert.equal(fittingLimit([20, -30], 0.15), LIMITS.at(-1));
  assert.equal(fittingLimit(Array(10).fill(0.29), 0.6), 0.6);
  assert.equal(fittingLimit(Array(10).fill(0.29), 0.15), 0.3);
  assert.equal(fittingLimit([-0.14, -0.18], 3), 0.3);
});

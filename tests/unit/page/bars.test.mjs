import assert from "node:assert/strict";
import { test } from "node:test";
import { Bars } from "../../../src/tickhouse/dashboard/static/model/bars.js";
import { Market } from "../../../src/tickhouse/dashboard/static/model/market.js";

const row = (start, close = 1) => [start, 1, 1, 1, close, 1, 1, false];

test("the last bar is replaced, a newer one appended", () => {
  const bars = new Bars();
  bars.replace([row(60), row(120)]);
  assert.deepEqual(bars.apply([row(120, 2), row(180)]), [row(120, 2), row(180)]);
  assert.deepEqual(bars.rows.map(([start, , , , close]) => [start, close]), [[60, 1], [120, 2], [180, 1]]);
});
test("a late bar lands in its place and asks for a redraw", () => {
  const bars = new Bars();
  bars.replace([row(60), row(180)]);
  assert.equal(bars.apply([row(120, 5)]), null);
  assert.deepEqual(bars.rows.map(([start]) => start), [60, 120, 180]);
  assert.equal(bars.apply([row(60, 7)]), null);
  assert.equal(bars.rows[0][4], 7);
});
test("bars of an empty chart are all new", () => {
  const bars = new Bars();
  assert.deepEqual(bars.apply([row(60), row(120)]), [row(60), row(120)]);
  assert.equal(bars.last[0], 120);
});
test("prices of unknown rows wait for the snapshot; changes are from the reference", () => {
  const market = new Market();
  market.replace({ symbol: ["A", "B"], price: [100, null], reference: [80, null], market_cap: [1, null], dollar_volume: [5, 6], sector: ["", ""] });
  assert.deepEqual(market.apply([0, 7], [120, 1]), [0]);
  assert.equal(market.change(0), 50);
  assert.equal(market.change(1), null);
  assert.equal(market.hasCaps(), true);
  assert.deepEqual(market.items("turnover").map(({ size }) => size), [5, 6]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { EDGE_SLOTS, gapAt, gapSlots } from "../../../src/tickhouse/dashboard/static/model/gaps.js";

const gap = (from, to, changes = {}) => ({ name: `${from}`, kind: "missed", stream: "trades", from_ms: from * 1000, to_ms: to * 1000, symbols: [], cause: "lost", filled_by: null, trades: null, ...changes });
const times = (gaps, step, from = 0) => gapSlots(gaps, step, from).map(({ time }) => time);

test("a gap takes the bars that it touches, and the places between where none is", () => {
  assert.deepEqual(times([gap(61, 239)], 60), [60, 120, 180]);
  assert.deepEqual(times([gap(60, 120)], 60), [60]);
  assert.deepEqual(times([gap(60, 121)], 60), [60, 120]);
});

test("a gap of no length takes the bar in which it is", () => {
  assert.deepEqual(times([gap(65, 65)], 60), [60]);
  assert.deepEqual(times([gap(60, 60)], 60), [60]);
});

test("what is older than the oldest bar is left out", () => {
  assert.deepEqual(times([gap(0, 300)], 60, 180), [180, 240]);
  assert.deepEqual(times([gap(0, 100)], 60, 180), []);
});

test("a long gap takes a bounded number of places, at both of its ends", () => {
  const found = times([gap(0, 100_000)], 1);
  assert.equal(found.length, 2 * EDGE_SLOTS);
  assert.deepEqual([found[0], found[EDGE_SLOTS - 1], found[EDGE_SLOTS], found.at(-1)], [0, EDGE_SLOTS - 1, 100_000 - EDGE_SLOTS, 99_999]);
  assert.equal(times([gap(0, 2 * EDGE_SLOTS)], 1).length, 2 * EDGE_SLOTS);
});

test("where a missing gap and a filled one meet, the missing one is shown", () => {
  const filled = gap(60, 180, { filled_by: "finnhub.tick", name: "filled" });
  const missing = gap(120, 240, { name: "missing" });
  for (const gaps of [[filled, missing], [missing, filled]]) {
    assert.deepEqual(gapSlots(gaps, 60, 0).map(({ gap: { name } }) => name), ["filled", "missing", "missing"]);
    assert.equal(gapAt(gaps, 120, 60).name, "missing");
  }
  assert.equal(gapAt([filled], 180, 60), null);
  assert.equal(gapAt([filled], 60, 60).name, "filled");
});

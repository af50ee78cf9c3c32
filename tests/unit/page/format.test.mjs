import assert from "node:assert/strict";
import { test } from "node:test";
import { direction, formatCount, formatDuration, formatPercent, formatPrice, formatShort } from "../../../src/tickhouse/dashboard/static/model/format.js";

test("prices have as many places as their size needs", () => {
  assert.deepEqual([1279.5422, 1, 0.5, 0.00001234, null, undefined].map((price) => formatPrice(price)), ["1,279.54", "1.00", "0.5000", "0.00001234", "–", "–"]);
});
test("a change has a sign, and none where it rounds to zero", () => {
  assert.deepEqual([1.234, -0.5, 0.001, -0.001, 0, null].map(formatPercent), ["+1.23%", "−0.50%", "0.00%", "0.00%", "0.00%", "–"]);
});
test("large numbers are short", () => {
  assert.deepEqual([999, 1000, 999_999, 1.5e6, 4.51e12, 0.25, 123_456_789_012].map(formatShort), ["999", "1.00K", "1.00M", "1.50M", "4.51T", "0.25", "123.5B"]);
});
test("durations name their unit", () => {
  assert.deepEqual([0, -5, 900, 15_000, 300_000, 3 * 3_600_000, 5 * 86_400_000, null].map(formatDuration), ["0.0 s", "0.0 s", "0.9 s", "15 s", "5 min", "3 h", "5 d", "–"]);
});
test("counts and directions", () => {
  assert.equal(formatCount(1234567.4), "1,234,567");
  assert.deepEqual([1, -1, 0, 0.001, null].map(direction), ["up", "down", "", "", ""]);
});

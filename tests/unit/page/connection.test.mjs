import assert from "node:assert/strict";
import { test } from "node:test";
import { connectionState, DISCONNECTED_MS, STALE_MS } from "../../../src/tickhouse/dashboard/static/model/connection.js";

const live = { socketOpen: true, wasOpen: true, failures: 0, silenceMs: 0, isKnown: true, hasTick: true, hasEnded: false, isLost: false, word: "live", tickAgeMs: 0, limitMs: STALE_MS };
const cases = [
  ["first connection", { socketOpen: false, wasOpen: false }, "connecting", ""],
  ["first connection refused", { socketOpen: false, wasOpen: false, failures: 1 }, "disconnected", "socket"],
  ["before the first heartbeat", { isKnown: false, hasTick: false }, "connecting", ""],
  ["no trade ever", { hasTick: false }, "waiting", ""],
  ["trades", {}, "live", ""],
  ["just before stale", { tickAgeMs: STALE_MS - 1 }, "live", ""],
  ["no trade for 3 s", { tickAgeMs: STALE_MS }, "stale", "feed"],
  ["a silent server for 3 s", { silenceMs: STALE_MS }, "stale", "silence"],
  ["no trade for 15 s", { tickAgeMs: DISCONNECTED_MS }, "disconnected", "feed"],
  ["a silent server for 15 s", { silenceMs: DISCONNECTED_MS }, "disconnected", "silence"],
  ["a feed that said goodbye", { hasEnded: true, tickAgeMs: 10 * DISCONNECTED_MS }, "stale", "ended"],
  ["a feed that said goodbye just now", { hasEnded: true, tickAgeMs: 1 }, "live", ""],
  ["a silent server after the feed's end", { hasEnded: true, tickAgeMs: 1e6, silenceMs: DISCONNECTED_MS }, "disconnected", "silence"],
  ["a closed market", { word: "closed", tickAgeMs: 1e7 }, "closed", ""],
  ["a closed market before the first trade", { word: "closed", hasTick: false }, "closed", ""],
  ["a feed that said goodbye in a closed market", { word: "closed", hasEnded: true, tickAgeMs: 1e7 }, "stale", "ended"],
  ["a silent server in a closed market", { word: "closed", silenceMs: DISCONNECTED_MS }, "disconnected", "silence"],
  ["pings without trades", { word: "halted-or-quiet", tickAgeMs: 1e7 }, "stale", "quiet"],
  ["a live feed that may be silent for a minute", { tickAgeMs: 59_000, limitMs: 60_000 }, "live", ""],
  ["a live feed beyond its minute", { word: "stale", tickAgeMs: 60_000, limitMs: 60_000 }, "stale", "feed"],
  ["a live feed beyond five minutes", { word: "stale", tickAgeMs: 300_000, limitMs: 60_000 }, "disconnected", "feed"],
  ["a connection lost just now", { isLost: true, tickAgeMs: 1 }, "live", ""],
  ["a connection lost for 3 s", { isLost: true, tickAgeMs: STALE_MS, limitMs: 60_000 }, "stale", "lost"],
  ["a connection lost for 15 s", { isLost: true, tickAgeMs: DISCONNECTED_MS, limitMs: 60_000 }, "disconnected", "lost"],
  ["a closed socket", { socketOpen: false }, "disconnected", "socket"],
  ["a closed socket before the first trade", { socketOpen: false, hasTick: false }, "disconnected", "socket"],
];
for (const [name, change, state, reason] of cases) {
  test(`${name}: ${state}`, () => assert.deepEqual(connectionState({ ...live, ...change }), { state, reason }));
}

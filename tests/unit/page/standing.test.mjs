import assert from "node:assert/strict";
import { test } from "node:test";
import { coverageSum, coverageText, markOf, marketText, momentText, opensIn, sourceText, wordText } from "../../../src/tickhouse/dashboard/static/model/standing.js";

const now = Date.UTC(2024, 7, 12, 14, 0);
const friday = Date.UTC(2024, 7, 9, 20, 0);
const is = (changes = {}) => {
  const all = { word: "live", from: "trade", channel: "socket", reason: "subscribed", every: null, quoted: 0, ...changes };
  return [all.word, all.from, all.channel, all.reason, all.every, all.quoted];
};

test("a symbol says how it is covered and why", () => {
  assert.equal(coverageText(is()), "on the socket");
  assert.equal(coverageText(is({ channel: "polling", reason: "beyond the socket's 50", every: 61.4 })), "polled, every 61 s (beyond the socket's 50)");
  assert.equal(coverageText(is({ channel: "polling", reason: "silent for 900 s" })), "polled (silent for 900 s: falls back to polling)");
  assert.equal(coverageText(is({ channel: "polling", reason: "achieved", every: 1.24 })), "polled, every 1.2 s");
  assert.equal(coverageText(is({ channel: "none", reason: "the plan lacks it" })), "not covered: the plan lacks it");
  assert.equal(coverageText(is({ channel: "" })), "");
});

test("a price says whether it is a trade or a polled quote", () => {
  assert.equal(sourceText(is()), "trade");
  assert.equal(sourceText(is({ from: "quote", every: 61 })), "polled quote, every 61 s");
  assert.equal(sourceText(is({ from: "quote" })), "polled quote");
});

test("one mark a symbol, the most important one", () => {
  const kind = (changes) => markOf(is(changes), now).kind;
  assert.equal(kind(), "");
  assert.equal(kind({ channel: "polling" }), "polled");
  assert.equal(kind({ channel: "", quoted: now }), "polled");
  assert.equal(kind({ channel: "polling", word: "halted-or-quiet" }), "quiet");
  assert.equal(kind({ channel: "polling", word: "stale" }), "stale");
  assert.equal(kind({ channel: "none", word: "stale" }), "none");
  assert.equal(kind({ word: "closed" }), "");
  assert.equal(markOf(is({ word: "stale", from: "", channel: "polling", reason: "polled only", quoted: friday }), now).title, "stale: quote of Fri 20:00 UTC; polled (polled only)");
});

test("a stale quote is shown as stale, with its time", () => {
  assert.equal(wordText(is({ word: "stale", from: "", quoted: friday }), now), "stale: quote of Fri 20:00 UTC");
  assert.equal(wordText(is({ word: "stale" }), now), "stale");
  assert.match(wordText(is({ word: "halted-or-quiet" }), now), /others trade/);
});

test("a time of today has no date, one of this week its day, an older one its date", () => {
  assert.equal(momentText(now - 60_000, now), "13:59");
  assert.equal(momentText(friday, now), "Fri 20:00");
  assert.equal(momentText(Date.UTC(2024, 6, 1, 20, 0), now), "2024-07-01 20:00");
});

test("the market says what it does, until when and when it opens", () => {
  const market = (state, until, opens, half = false) => ({ state, until_ms: until, opens_ms: opens, is_early_close: half });
  const open = Date.UTC(2024, 7, 13, 13, 30);
  assert.equal(marketText(market("regular", Date.UTC(2024, 7, 12, 20, 0), null), now), "regular, until 20:00");
  assert.equal(marketText(market("regular", Date.UTC(2024, 7, 12, 17, 0), null, true), now), "regular (half day), until 17:00");
  assert.equal(marketText(market("closed", null, open), now), "closed, opens Tue 13:30");
  assert.equal(marketText(market("pre-market", open, open), open - 60_000), "pre-market, opens 13:30");
  assert.equal(marketText(market("closed", null, null), now), "closed");
  assert.equal(marketText(market("always-open", null, null), now), "open 24 h");
  assert.equal(marketText(null, now), "–");
  assert.equal(opensIn(market("closed", null, now + 3 * 3_600_000), now), "opens in 3 h");
  assert.equal(opensIn(market("regular", null, null), now), "");
});

test("the feed sums its coverage up", () => {
  assert.equal(coverageSum({ socket: 50, polling: 453, none: 2, silent: 3, every_s: 61.4 }), "50 on the socket · 453 polled, every 61 s (3 silent on the socket) · 2 not covered");
  assert.equal(coverageSum({ socket: 0, polling: 1, none: 0, silent: 0, every_s: null }), "1 polled");
  assert.equal(coverageSum(null), "");
});

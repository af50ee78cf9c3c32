// Wires the page: frames in, views out. State flows one way: socket and REST → model → views.

import { getPipeline, getSnapshot } from "./api/rest.js";
import { LiveSocket } from "./api/socket.js";
import { connectionState, STALE_MS } from "./model/connection.js";
import { Market } from "./model/market.js";
import { Chart, INTERVALS } from "./views/chart.js";
import { byId, cover } from "./views/dom.js";
import { KpiRow } from "./views/kpi.js";
import { Lane } from "./views/lane.js";
import { MarketMap } from "./views/map.js";
import { TopBar } from "./views/topbar.js";
import { Watchlist } from "./views/watchlist.js";

const SNAPSHOT_EVERY_MS = 5_000;
const RESYNC_PAUSE_MS = 500;
const SHORT_HISTORY = 10;

const market = new Market();
const state = {
  /** @type {any} */ kpi: null,
  /** @type {any} */ hb: null,
  /** @type {any} */ pipeline: null,
  /** @type {any} */ snapshot: null,
  hbAt: 0,
  frameAt: 0,
  wasOpen: false,
  failures: 0,
  connection: /** @type {{state: import("./model/connection.js").State, reason: string}} */ ({ state: "connecting", reason: "" }),
  snapshotAt: -Infinity,
  snapshotGold: null,
  gapMark: "",
  isFetching: false,
  resyncs: 0,
};

const topBar = new TopBar();
const kpiRow = new KpiRow(select);
const watchlist = new Watchlist(market, select);
const chart = new Chart(market, (interval) => select(chart.symbol, interval));
const map = new MarketMap(market, select);
const lane = new Lane();
const socket = new LiveSocket({
  onFrame: take,
  onOpen() {
    [state.wasOpen, state.failures, state.frameAt] = [true, 0, performance.now()];
    resync();
  },
  onClose() {
    state.failures += 1;
    showConnection();
  },
  onResync: resync,
});
for (const channel of ["market", "kpi", "pipeline"]) socket.subscribe(channel);

/** @param {any} frame */
function take(frame) {
  state.frameAt = performance.now();
  if (frame.op === "hb") takeHeartbeat(frame);
  else if (frame.ch === "market") takePrices(frame);
  else if (frame.ch === "kpi") [state.kpi] = [frame.kpi];
  else if (frame.ch === "pipeline") state.pipeline = frame.pipeline;
  else if (frame.ch === channelOf(chart.symbol, chart.interval)) chart.take(frame);
  if (frame.ch === "kpi") kpiRow.show(state.kpi, state.hb);
  if (frame.ch === "pipeline") lane.show(state.pipeline, state.connection.state);
}

/** @param {any} hb */
function takeHeartbeat(hb) {
  const isOther = state.hb !== null && state.hb.run !== hb.run;
  const isFirstGold = state.hb !== null && state.hb.gold === null && hb.gold !== null;
  [state.hb, state.hbAt] = [hb, performance.now()];
  if (isOther || isFirstGold) resync();
  const isDue = performance.now() - state.snapshotAt >= SNAPSHOT_EVERY_MS;
  if (isDue && (hb.gold !== state.snapshotGold || market.size === 0)) void loadSnapshot();
  if (!state.kpi) kpiRow.show(null, hb);
  const gapMark = String(hb.gap_mark);
  if (state.gapMark !== gapMark && state.gapMark !== "") chart.loadGaps();
  state.gapMark = gapMark;
  showConnection();
}

/** @param {any} frame */
function takePrices(frame) {
  const known = market.apply(frame.i, frame.p);
  if (frame.s) watchlist.stand(market.applyStandings(frame.s));
  if (frame.size > market.size && !state.isFetching) void loadSnapshot();
  watchlist.update(known);
  map.draw();
  chart.quote();
}

let resyncTimer = 0;

/** Ask for everything anew, without losing what is on the page. */
function resync() {
  state.resyncs += 1;
  clearTimeout(resyncTimer);
  resyncTimer = setTimeout(() => {
    void loadSnapshot();
    if (chart.symbol) void chart.load(chart.bars.rows.length === 0);
  }, state.resyncs === 1 ? 0 : RESYNC_PAUSE_MS);
}

async function loadSnapshot() {
  state.isFetching = true;
  try {
    const snapshot = await getSnapshot();
    [state.snapshot, state.snapshotAt, state.snapshotGold] = [snapshot, performance.now(), snapshot.gold];
    if (snapshot.kpi) state.kpi = snapshot.kpi;
    market.replace(snapshot.market);
    showMarket();
  } catch (error) {
    const retry = () => void loadSnapshot();
    if (market.size === 0) cover("map", { title: "The market could not be loaded", text: /** @type {Error} */ (error).message, retry });
  } finally {
    state.isFetching = false;
  }
}

function showMarket() {
  watchlist.arrange();
  map.layout();
  kpiRow.show(state.kpi, state.hb);
  const hasNoSizes = market.size > 0 && map.cells.length === 0;
  if (hasNoSizes) cover("map", { title: "Waiting for the first build", text: "Sizes and sectors come from gold, which is built a few seconds after the first trades.", isBusy: true });
  else cover("map", market.size ? null : { title: "Waiting for the first tick", text: "Start everything with the simulator, which needs no key:", code: "tickhouse up", isBusy: true });
  if (!chart.symbol && market.size) void begin();
  chart.quote();
}

/** Show what the address names, or the most traded symbol, by the second while there is little. */
async function begin() {
  const { symbol = market.columns.symbol[watchlist.order[0]], interval } = fromHash();
  await select(symbol, interval);
  const isShort = chart.bars.rows.length < SHORT_HISTORY;
  if (!interval && isShort && chart.symbol === symbol && chart.interval === "1m") await select(symbol, "1s");
}

/** @param {string} symbol @param {string} interval */
const channelOf = (symbol, interval) => `bars:${symbol}:${interval}`;

/** @param {string} symbol @param {string} [interval] */
function select(symbol, interval = chart.interval) {
  if (!symbol || (symbol === chart.symbol && interval === chart.interval)) return;
  if (chart.symbol) socket.unsubscribe(channelOf(chart.symbol, chart.interval));
  socket.subscribe(channelOf(symbol, interval));
  const shown = chart.show(symbol, interval);
  watchlist.select(symbol);
  map.select(symbol);
  chart.quote();
  history.replaceState(null, "", `#/s/${encodeURIComponent(symbol)}?i=${interval}`);
  document.title = `${symbol} · tickhouse`;
  return shown;
}

/** @returns {{symbol?: string, interval?: string}} */
function fromHash() {
  const match = /^#\/s\/([^?]+)(?:\?i=(\w+))?$/.exec(location.hash);
  if (!match) return {};
  const interval = INTERVALS.some(([value]) => value === match[2]) ? match[2] : undefined;
  try {
    return { symbol: decodeURIComponent(match[1]), interval };
  } catch {
    return {};
  }
}

function showConnection() {
  const now = performance.now();
  const { hb } = state;
  const sinceHb = now - state.hbAt;
  const tickAgeMs = hb?.tick_ms ? Math.max(hb.ts - hb.tick_ms, 0) + sinceHb : null;
  const before = state.connection.state;
  state.connection = connectionState({
    socketOpen: socket.isOpen && state.frameAt > 0,
    wasOpen: state.wasOpen,
    failures: state.failures,
    silenceMs: now - state.frameAt,
    isKnown: hb !== null,
    hasTick: tickAgeMs !== null,
    hasEnded: hb !== null && hb.ended,
    isLost: hb !== null && hb.lost !== null,
    word: hb?.word ?? "",
    tickAgeMs: tickAgeMs ?? 0,
    limitMs: hb?.stale_ms ?? STALE_MS,
  });
  topBar.show({ ...state.connection, hb, tickAgeMs, tickAtMs: hb?.tick_ms ?? null, nowMs: Date.now() });
  if (before !== state.connection.state) lane.show(state.pipeline, state.connection.state);
  if (state.connection.state === "waiting" && !chart.symbol) cover("chart", { title: "Waiting for the first tick", text: "Candles appear with the first trade.", isBusy: true });
}

document.addEventListener("keydown", (event) => {
  const isTyping = /** @type {HTMLElement} */ (event.target).closest("input, textarea");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const interval = INTERVALS[Number(event.key) - 1];
  if (event.key === "/") {
    event.preventDefault();
    byId("search").focus();
  } else if (interval && chart.symbol) select(chart.symbol, interval[0]);
  else if (event.key === "j" && event.target !== watchlist.list) watchlist.move(1);
  else if (event.key === "k" && event.target !== watchlist.list) watchlist.move(-1);
});
window.addEventListener("hashchange", () => {
  const { symbol, interval } = fromHash();
  if (symbol) select(symbol, interval);
});
setInterval(showConnection, 250);
setInterval(() => map.fillTable(), 2_000);
getPipeline().then(
  (pipeline) => {
    state.pipeline ??= pipeline;
    lane.show(state.pipeline, state.connection.state);
  },
  () => undefined,
);

/** For tests and the curious: what the page knows, read-only. */
Object.defineProperty(window, "__tickhouse", {
  value: Object.freeze({
    get state() { return state.connection.state; },
    get reason() { return state.connection.reason; },
    get symbol() { return chart.symbol; },
    get interval() { return chart.interval; },
    get bars() { return structuredClone(chart.bars.rows); },
    get lastBar() { return structuredClone(chart.bars.last ?? null); },
    get mapCells() {
      return map.cells.map(({ item, rect }) => ({ symbol: item.symbol, sector: item.sector, ...rect, change: market.change(item.number), price: market.columns.price[item.number] }));
    },
    get gaps() { return structuredClone(chart.shading.slots.map(({ time, gap }) => ({ time, name: gap.name, filledBy: gap.filled_by }))); },
    get standings() { return Object.fromEntries(market.columns.symbol.map((symbol, number) => [symbol, structuredClone(market.standing(number))])); },
    get kpi() { return structuredClone(state.kpi); },
    get heartbeat() { return structuredClone(state.hb); },
    get seq() { return Object.fromEntries(socket.sequence); },
    get frames() { return socket.frames; },
    get resyncs() { return state.resyncs; },
    select,
  }),
});

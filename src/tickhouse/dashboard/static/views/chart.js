// Candles with volume. History comes from published gold, the newest bars from the live feed.

import { CandlestickSeries, ColorType, createChart, CrosshairMode, HistogramSeries, LineStyle } from "../vendor/lightweight-charts.standalone.production.mjs";
import { getCandles } from "../api/rest.js";
import { Bars } from "../model/bars.js";
import { decimals, direction, formatCount, formatDateTime, formatDuration, formatPercent, formatPrice, formatShort } from "../model/format.js";
import { coverageText, sourceText, wordText } from "../model/standing.js";
import { byId, cover, cssValue, make, segments, setText } from "./dom.js";
import { GapShading } from "./gaps.js";

/** @type {[string, string][]} */
export const INTERVALS = [["1s", "1s"], ["1m", "1m"], ["5m", "5m"], ["1h", "1h"]];
const STEP_S = { "1s": 1, "1m": 60, "5m": 300, "1h": 3600 };
const HISTORY = 600;
const RETRY_MS = 3_000;
const VISIBLE_BARS = 110;

/** @typedef {import("../api/rest.js").Row} Row */

export class Chart {
  /**
   * @param {import("../model/market.js").Market} market
   * @param {(interval: string) => void} onInterval
   */
  constructor(market, onInterval) {
    this.market = market;
    this.bars = new Bars();
    this.symbol = "";
    this.interval = "1m";
    this.isLoaded = false;
    this.hasFailed = false;
    this.colors = { up: "", down: "", panel: "" };
    /** @type {Row[]} */
    this.early = [];
    /** @type {AbortController | null} */
    this.request = null;
    /** @type {Row | null} */
    this.hovered = null;
    this.showInterval = segments(byId("intervals"), INTERVALS, onInterval);
    this.note = byId("chart-note");
    this.chart = createChart(byId("chart"), { autoSize: true, layout: { attributionLogo: true } });
    this.shading = new GapShading(this.chart, () => this.showGaps());
    this.candles = this.chart.addSeries(CandlestickSeries, {}, 0);
    this.price = this.candles.createPriceLine({ price: 0, lineStyle: LineStyle.Dotted, lineVisible: false, axisLabelVisible: false });
    this.volume = this.chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false }, 1);
    this.chart.panes()[0].setStretchFactor(4);
    this.chart.panes()[1].setStretchFactor(1);
    this.chart.subscribeCrosshairMove((event) => this.hover(event.time, event.point));
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.theme());
    this.theme();
  }

  theme() {
    const [text, line, panel] = [cssValue("--muted"), cssValue("--line"), cssValue("--panel")];
    this.colors = { up: cssValue("--up"), down: cssValue("--down"), panel };
    this.chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: panel }, textColor: text, fontSize: 11, fontFamily: cssValue("--font"), panes: { separatorColor: line, enableResize: false } },
      grid: { vertLines: { color: `${line}80` }, horzLines: { color: `${line}80` } },
      rightPriceScale: { borderColor: line, minimumWidth: 64 },
      timeScale: { borderColor: line, timeVisible: true, rightOffset: 6, minBarSpacing: 1 },
      crosshair: { mode: CrosshairMode.Normal, vertLine: { labelBackgroundColor: "#3b4a63", style: LineStyle.Dashed }, horzLine: { labelBackgroundColor: "#3b4a63", style: LineStyle.Dashed } },
      localization: { locale: "en-US" },
    });
    this.candles.applyOptions({
      upColor: this.colors.up, downColor: this.colors.down, wickUpColor: this.colors.up, wickDownColor: this.colors.down,
      borderUpColor: this.colors.up, borderDownColor: this.colors.down, lastValueVisible: false, priceLineVisible: false,
    });
    this.shading.show();
    if (this.isLoaded) this.draw();
  }

  /** Show another symbol or interval. @param {string} symbol @param {string} interval */
  async show(symbol, interval) {
    [this.symbol, this.interval] = [symbol, interval];
    this.showInterval(interval);
    setText(byId("chart-symbol"), symbol);
    this.bars.replace([]);
    this.hovered = null;
    this.note.hidden = true;
    this.shading.clear(symbol, STEP_S[/** @type {keyof typeof STEP_S} */ (interval)]);
    this.legend();
    this.chart.applyOptions({ timeScale: { secondsVisible: interval === "1s" } });
    await this.load(true);
  }

  /** Fetch the history; live bars that arrive meanwhile go on top. @param {boolean} isNew */
  async load(isNew) {
    this.request?.abort();
    const request = new AbortController();
    this.request = request;
    this.isLoaded = this.hasFailed = false;
    this.early = [];
    if (isNew) {
      this.candles.setData([]);
      this.volume.setData([]);
      cover("chart", { title: "Loading candles", isBusy: true });
    }
    try {
      const found = await getCandles(this.symbol, this.interval, HISTORY, request.signal);
      if (this.request !== request) return;
      this.bars.replace(found.rows);
      this.bars.apply(this.early);
      this.isLoaded = true;
      this.draw(isNew);
      this.coverIfEmpty();
      this.loadGaps();
    } catch (error) {
      if (request.signal.aborted || this.request !== request) return;
      this.isLoaded = true;
      this.bars.apply(this.early);
      if (!isNew) return void setTimeout(() => this.request === request && this.load(false), RETRY_MS);
      this.hasFailed = true;
      const retry = () => void this.load(true);
      cover("chart", { title: "The candles could not be loaded", text: /** @type {Error} */ (error).message, retry });
    }
  }

  /** Ask for the gaps of what is shown. */
  loadGaps() {
    void this.shading.load(this.bars.rows[0]?.[0]);
  }

  showGaps() {
    this.shading.show();
    this.legend();
  }

  coverIfEmpty() {
    if (this.hasFailed) return;
    if (this.bars.rows.length) return cover("chart", null);
    const standing = this.market.standing(this.market.numbers.get(this.symbol));
    const [, , channel] = standing;
    if (channel === "polling" || channel === "none") {
      const text = `${this.symbol} is ${coverageText(standing)}. Candles are made of trades alone.`;
      return cover("chart", { title: "No candles", text });
    }
    const text = `No bars of ${this.symbol} in published gold yet. They appear with the first trades.`;
    cover("chart", { title: "Waiting for the first tick", text, isBusy: true });
  }

  /** @param {{bars: Row[], note: string}} frame */
  take(frame) {
    if (!this.isLoaded) {
      this.early.push(...frame.bars);
      return;
    }
    const wasEmpty = this.bars.rows.length === 0;
    const newer = this.bars.apply(frame.bars);
    if (wasEmpty) this.coverIfEmpty();
    if (newer === null || wasEmpty) this.draw(wasEmpty);
    else for (const row of newer) this.drawOne(row);
    this.note.hidden = frame.note === "";
    setText(this.note, frame.note === "" ? "" : "Catching up: the page skipped trades; published gold fills them in");
    this.legend();
  }

  /** @param {boolean} [isNew] */
  draw(isNew = false) {
    const { rows } = this.bars;
    const range = this.chart.timeScale().getVisibleLogicalRange();
    const price = rows.findLast((row) => row[4] != null)?.[4] ?? 0;
    const places = decimals(price);
    this.candles.applyOptions({ priceFormat: { type: "price", precision: places, minMove: 10 ** -places } });
    this.candles.setData(rows.map((row, i) => this.candle(row, i === rows.length - 1)));
    this.volume.setData(rows.map((row) => this.volumeBar(row)));
    const starts = new Set(rows.map(([start]) => start));
    const slotCount = rows.length + this.shading.slots.filter(({ time }) => !starts.has(time)).length;
    if (isNew || !range) this.chart.timeScale().setVisibleLogicalRange({ from: Math.max(slotCount - VISIBLE_BARS, -20), to: slotCount + 5 });
    else this.chart.timeScale().setVisibleLogicalRange(range);
    this.legend();
  }

  /** @param {Row} row */
  drawOne(row) {
    const before = this.bars.rows[this.bars.rows.length - 2];
    if (row === this.bars.last && before) this.candles.update(this.candle(before, false), true);
    this.candles.update(this.candle(row, row === this.bars.last));
    this.volume.update(this.volumeBar(row));
  }

  /** The bar that is still open is drawn hollow. @param {Row} row @param {boolean} isLast @returns {any} */
  candle(row, isLast) {
    const [time, open, high, low, close] = row;
    if (open == null) return { time };
    const bar = { time, open, high, low, close };
    return isLast ? { ...bar, color: this.colors.panel } : bar;
  }

  /** @param {Row} row @returns {any} */
  volumeBar(row) {
    const [time, open, , , close, volume] = row;
    const color = open == null || close == null ? cssValue("--flat") : close >= open ? this.colors.up : this.colors.down;
    return { time, value: volume, color: `${color}8c` };
  }

  /** @param {any} time @param {{x: number, y: number} | undefined} point */
  hover(time, point) {
    this.shading.hover(time, point);
    const at = time === undefined ? -1 : this.bars.position(time);
    this.hovered = at >= 0 && this.bars.rows[at]?.[0] === time ? this.bars.rows[at] : null;
    this.legend();
  }

  /** The tag on the price axis follows the last close. */
  tag() {
    const row = this.bars.rows.findLast((bar) => bar[4] != null);
    const isShown = row !== undefined;
    const color = row && Number(row[4]) < Number(row[1]) ? this.colors.down : this.colors.up;
    this.price.applyOptions({ price: row?.[4] ?? 0, color, axisLabelColor: color, axisLabelTextColor: "#fff", lineVisible: isShown, axisLabelVisible: isShown });
  }

  legend() {
    this.tag();
    const row = this.hovered ?? this.bars.last;
    const host = byId("legend");
    if (!row) return host.replaceChildren();
    const [time, open, high, low, close, volume, count] = row;
    const way = direction((close ?? 0) - (open ?? 0));
    const values = [["O", formatPrice(open)], ["H", formatPrice(high)], ["L", formatPrice(low)], ["C", formatPrice(close)]];
    host.replaceChildren(
      make("span", { text: `${formatDateTime(time * 1000).slice(0, this.interval === "1s" ? 19 : 16)}` }),
      ...values.map(([name, text]) => make("span", { text: name }, [make("b", { class: way, text })])),
      make("span", { text: "Vol" }, [make("b", { text: formatShort(volume) })]),
      make("span", { text: "Trades" }, [make("b", { text: formatCount(count) })]),
      ...(this.shading.at(time)?.filled_by === null ? [make("span", { class: "incomplete", text: "incomplete" })] : []),
    );
  }

  /** The head over the chart: last price, change, name. */
  quote() {
    const number = this.market.numbers.get(this.symbol);
    const columns = this.market.columns;
    const price = number === undefined ? this.bars.last?.[4] : columns.price[number];
    setText(byId("quote-price"), this.symbol ? formatPrice(price) : "");
    const change = number === undefined ? null : this.market.change(number);
    const reference = number === undefined ? null : columns.reference[number];
    const element = byId("quote-change");
    const difference = change === null || !price || !reference ? "" : `${price >= reference ? "+" : "−"}${formatPrice(Math.abs(price - reference), decimals(price))} `;
    const since = number !== undefined && columns.reference_is[number] === "open" ? " since open" : "";
    setText(element, change === null ? "" : `${difference}(${formatPercent(change)})${since}`);
    element.className = `quote-change ${direction(change)}`;
    setText(byId("chart-name"), number === undefined ? "" : columns.name[number]);
    this.stand(number);
    const last = this.bars.last;
    setText(byId("chart-summary"), last ? `${this.symbol}, ${this.interval} candles. Last price ${formatPrice(price)}, change ${formatPercent(change)}.` : "");
  }

  /** Where the price is from, what it is worth, and whether the day is whole. @param {number | undefined} number */
  stand(number) {
    const standing = this.market.standing(number);
    const columns = this.market.columns;
    const tag = byId("chart-tag");
    const source = number === undefined ? "" : columns.source[number];
    const from = sourceText(standing) || source;
    tag.hidden = from === "";
    setText(tag, from);
    const disagrees = number === undefined ? "" : columns.disagreements[number];
    tag.title = [source, disagrees && `the source says otherwise of: ${disagrees}`].filter(Boolean).join("; ");
    tag.classList.toggle("warn", disagrees !== "");
    const word = byId("quote-word");
    word.dataset.word = standing[0];
    const covered = coverageText(standing);
    setText(word, [wordText(standing, Date.now()), covered].filter(Boolean).join(" · "));
    byId("quote-price").classList.toggle("is-stale", standing[0] === "stale");
    const incomplete = byId("chart-incomplete");
    const missing = number === undefined ? 0 : columns.missing_s[number];
    incomplete.hidden = number === undefined || columns.is_complete[number] !== false;
    setText(incomplete, `incomplete${missing ? `: ${formatDuration(missing * 1000)} missing` : ""}`);
  }
}

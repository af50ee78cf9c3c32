// Gaps on the chart: shaded where data is missing, a strip at the foot where it was filled since.

import { HistogramSeries } from "../vendor/lightweight-charts.standalone.production.mjs";
import { getGaps } from "../api/rest.js";
import { counted, formatCount, formatDateTime, formatDuration } from "../model/format.js";
import { gapAt, gapSlots } from "../model/gaps.js";
import { byId, cssValue, make, setText } from "./dom.js";

const FILLED_HEIGHT = 0.07;
const RETRY_MS = 5_000;

/** @typedef {import("../model/gaps.js").Gap} Gap */

export class GapShading {
  /**
   * @param {any} chart of the vendored library
   * @param {() => void} onChange the gaps are other ones
   */
  constructor(chart, onChange) {
    this.onChange = onChange;
    /** @type {Gap[]} */
    this.gaps = [];
    /** @type {{time: number, gap: Gap}[]} */
    this.slots = [];
    this.symbol = "";
    this.stepS = 60;
    this.fromS = 0;
    /** @type {AbortController | null} */
    this.request = null;
    this.series = chart.addSeries(
      HistogramSeries,
      { priceScaleId: "gaps", lastValueVisible: false, priceLineVisible: false, base: 0, autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 1 } }) },
      0,
    );
    this.series.priceScale().applyOptions({ scaleMargins: { top: 0, bottom: 0 }, visible: false });
    this.tip = byId("gap-tip");
    this.toggle = byId("gap-toggle");
    this.list = byId("gap-list");
    this.toggle.addEventListener("click", () => this.open(this.list.hidden));
    this.list.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.open(false);
      this.toggle.focus();
    });
  }

  /** @param {boolean} isOpen */
  open(isOpen) {
    this.list.hidden = !isOpen;
    this.toggle.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.fillList();
  }

  /** Nothing is known of the symbol that is shown next. @param {string} symbol @param {number} stepS */
  clear(symbol, stepS) {
    this.request?.abort();
    [this.symbol, this.stepS, this.fromS, this.gaps] = [symbol, stepS, 0, []];
    this.tip.hidden = true;
    this.open(false);
    this.show();
  }

  /** Ask for the gaps since the oldest bar, and draw them. @param {number | undefined} fromS */
  async load(fromS) {
    if (fromS === undefined || !this.symbol) return;
    this.request?.abort();
    const request = new AbortController();
    [this.request, this.fromS] = [request, fromS];
    try {
      const { gaps } = await getGaps(this.symbol, fromS, request.signal);
      if (this.request !== request) return;
      this.gaps = gaps.filter((gap) => gap.stream === "trades");
      this.onChange();
    } catch {
      if (this.request === request) setTimeout(() => this.request === request && this.load(fromS), RETRY_MS);
    }
  }

  /** Draw what is known. */
  show() {
    this.slots = gapSlots(this.gaps, this.stepS, this.fromS);
    const [missing, filled] = [cssValue("--gap-missing"), cssValue("--gap-filled")];
    this.series.setData(this.slots.map(({ time, gap }) => ({ time, value: gap.filled_by === null ? 1 : FILLED_HEIGHT, color: gap.filled_by === null ? missing : filled })));
    const shown = [...new Set(this.slots.map(({ gap }) => gap))];
    const open = shown.filter((gap) => gap.filled_by === null).length;
    const closed = shown.length - open;
    this.toggle.hidden = shown.length === 0;
    this.toggle.replaceChildren(
      ...(open ? [make("i", { class: "gap-key missing", "aria-hidden": "true" }), `${counted(open, "gap")}`] : []),
      ...(closed ? [make("i", { class: "gap-key filled", "aria-hidden": "true" }), `${formatCount(closed)} filled`] : []),
    );
    if (!this.list.hidden) this.fillList();
  }

  fillList() {
    const shown = [...new Set(this.slots.map(({ gap }) => gap))].reverse();
    const head = make("tr", {}, ["From (UTC)", "To", "Lasted", "Cause", "Filled by"].map((text) => make("th", { scope: "col", text })));
    const rows = shown.map((gap) => {
      const cells = [formatDateTime(gap.from_ms), formatDateTime(gap.to_ms).slice(11), formatDuration(gap.to_ms - gap.from_ms), causeOf(gap), gap.filled_by ?? "not filled"];
      return make("tr", { "data-filled": String(gap.filled_by !== null) }, cells.map((text) => make("td", { text })));
    });
    this.list.replaceChildren(make("table", {}, [make("caption", { class: "sr-only", text: `Gaps of ${this.symbol}` }), make("thead", {}, [head]), make("tbody", {}, rows)]));
  }

  /** The gap that a bar falls into. @param {number} time */
  at(time) {
    return gapAt(this.gaps, time, this.stepS);
  }

  /** @param {number | undefined} time @param {{x: number, y: number} | undefined} point */
  hover(time, point) {
    const gap = time === undefined ? null : this.at(time);
    this.tip.hidden = !gap || !point;
    if (!gap || !point) return;
    setText(this.tip, `${textOf(gap)}`);
    this.tip.dataset.filled = String(gap.filled_by !== null);
    const width = this.tip.parentElement?.clientWidth ?? 0;
    this.tip.style.left = `${Math.max(4, Math.min(point.x + 14, width - this.tip.offsetWidth - 70))}px`;
    this.tip.style.top = `${Math.max(4, point.y - this.tip.offsetHeight - 10)}px`;
  }
}

/** @param {Gap} gap */
const causeOf = (gap) => (gap.trades === null ? gap.cause : `${gap.cause} (${counted(gap.trades, "trade")})`);

/** @param {Gap} gap */
export function textOf(gap) {
  const isSameDay = new Date(gap.from_ms).toISOString().slice(0, 10) === new Date(gap.to_ms).toISOString().slice(0, 10);
  const until = formatDateTime(gap.to_ms).slice(isSameDay ? 11 : 0);
  const end = gap.filled_by === null ? "not filled" : `filled by ${gap.filled_by}`;
  return `Gap ${formatDateTime(gap.from_ms)} – ${until} UTC\n${causeOf(gap)}\n${end}`;
}

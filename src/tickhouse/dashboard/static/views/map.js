// The market map on a canvas: area is size, colour is change; with a table that says the same.

import { changeColor, fittingLimit } from "../model/colors.js";
import { direction, formatPercent, formatPrice, formatShort, shortSymbol } from "../model/format.js";
import { sourceText, wordText } from "../model/standing.js";
import { layoutMarket } from "../model/treemap.js";
import { byId, cssValue, make, segments, setText } from "./dom.js";

const HEADER = 17;
const STALE_ALPHA = 0.4;
const TABLE_ROWS = 500;
const WIDTHS_MAX = 5_000;

export class MarketMap {
  /**
   * @param {import("../model/market.js").Market} market
   * @param {(symbol: string) => void} onSelect
   */
  constructor(market, onSelect) {
    this.market = market;
    this.onSelect = onSelect;
    this.selected = "";
    /** @type {"cap" | "turnover" | ""} */
    this.chosen = "";
    /** @type {import("../model/treemap.js").Cell[]} */
    this.cells = [];
    /** @type {import("../model/treemap.js").Sector[]} */
    this.sectors = [];
    /** @type {HTMLCanvasElement} */
    this.canvas = byId("map");
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.tooltip = byId("tooltip");
    this.table = byId("map-table");
    this.isDrawn = false;
    this.limit = 3;
    this.font = this.ink = "";
    /** @type {Map<string, number>} */
    this.widths = new Map();
    this.showArea = segments(byId("map-area"), [["cap", "Market cap"], ["turnover", "Turnover"]], (area) => this.chooseArea(area));
    new ResizeObserver(() => this.layout()).observe(this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => (this.tooltip.hidden = true));
    this.canvas.addEventListener("click", (event) => {
      const cell = this.at(event);
      if (cell) onSelect(cell.item.symbol);
    });
    const toggle = byId("map-toggle");
    toggle.addEventListener("click", () => {
      this.table.hidden = !this.table.hidden;
      toggle.setAttribute("aria-pressed", String(!this.table.hidden));
      this.fillTable();
    });
    this.table.addEventListener("click", (event) => {
      const symbol = /** @type {HTMLElement} */ (event.target).closest("button")?.textContent;
      if (symbol) onSelect(symbol);
    });
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.draw());
    this.drawLegend();
  }

  drawLegend() {
    const steps = [-3, -2, -1, 0, 1, 2, 3].map((step) => (step * this.limit) / 3);
    const places = this.limit < 0.3 ? 2 : this.limit < 3 ? 1 : 0;
    const host = byId("map-legend");
    host.setAttribute("aria-label", `Colour: change in percent, from minus ${this.limit} to plus ${this.limit}`);
    host.replaceChildren(
      ...steps.map((step) => {
        const sign = step > 0 ? "+" : step < 0 ? "−" : "";
        const box = make("i", { text: sign + Math.abs(step).toFixed(step === 0 ? 0 : places) });
        box.style.background = changeColor(step, this.limit);
        return box;
      }),
      make("span", { class: "muted", text: " %" }),
    );
  }

  /** Fit the colours to the changes of the moment. */
  scale() {
    const limit = fittingLimit(this.cells.map(({ item }) => this.market.change(item.number)), this.limit);
    if (limit === this.limit) return;
    this.limit = limit;
    this.drawLegend();
  }

  get area() {
    return this.chosen || (this.market.hasCaps() ? "cap" : "turnover");
  }

  /** @param {string} area */
  chooseArea(area) {
    this.chosen = /** @type {"cap" | "turnover"} */ (area);
    this.layout();
  }

  /** Place the cells: after a snapshot, a change of size or of what the area means. */
  layout() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const items = this.market.items(this.area);
    ({ cells: this.cells, sectors: this.sectors } = layoutMarket(items, width, height, HEADER));
    this.showArea(this.area);
    this.scale();
    const left = items.length - this.cells.length;
    const what = this.area === "cap" ? "market value" : "turnover";
    setText(byId("map-note"), left > 0 && this.cells.length ? `${left} without ${what} not shown` : "");
    this.draw();
    this.fillTable();
  }

  /** Draw in the next frame, however often it is asked for. */
  draw() {
    if (this.isDrawn) return;
    this.isDrawn = true;
    requestAnimationFrame(() => {
      this.isDrawn = false;
      this.paint();
    });
  }

  paint() {
    const { context, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = cssValue("--map-gap");
    context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    this.font = cssValue("--font");
    this.ink = cssValue("--map-text");
    for (const sector of this.sectors) this.paintSector(sector);
    for (const cell of this.cells) this.paintCell(cell);
    const chosen = this.cells.find((cell) => cell.item.symbol === this.selected);
    if (chosen) {
      const { x, y, w, h } = chosen.rect;
      context.strokeStyle = cssValue("--text");
      context.lineWidth = 2;
      context.strokeRect(x + 1.5, y + 1.5, Math.max(w - 3, 1), Math.max(h - 3, 1));
    }
    const [best, worst] = this.extremes();
    this.canvas.setAttribute("aria-label", best && worst ? `Market map of ${this.cells.length} symbols. Best: ${best}. Worst: ${worst}. The table has all values.` : "Market map, empty");
  }

  extremes() {
    const changes = this.cells.map(({ item }) => ({ symbol: item.symbol, change: this.market.change(item.number) })).filter(({ change }) => change !== null);
    if (!changes.length) return [];
    changes.sort((a, b) => Number(b.change) - Number(a.change));
    return [changes[0], changes[changes.length - 1]].map(({ symbol, change }) => `${symbol} ${formatPercent(change)}`);
  }

  /** @param {import("../model/treemap.js").Sector} sector */
  paintSector({ name, rect, header }) {
    if (!header) return;
    const { context } = this;
    context.fillStyle = cssValue("--map-head");
    context.fillRect(rect.x + 1, rect.y, rect.w - 2, header - 1);
    context.fillStyle = cssValue("--muted");
    context.font = `600 10.5px ${this.font}`;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(fitted(context, name, rect.w - 10), rect.x + 5, rect.y + header / 2);
  }

  /** @param {import("../model/treemap.js").Cell} cell */
  paintCell({ item, rect }) {
    const { context } = this;
    const change = this.market.change(item.number);
    const [x, y, w, h] = [rect.x + 0.5, rect.y + 0.5, Math.max(rect.w - 1, 0.4), Math.max(rect.h - 1, 0.4)];
    const isStale = this.market.standing(item.number)[0] === "stale";
    if (isStale) {
      context.fillStyle = changeColor(null, this.limit);
      context.fillRect(x, y, w, h);
    }
    context.globalAlpha = isStale ? STALE_ALPHA : 1;
    context.fillStyle = changeColor(change, this.limit);
    context.fillRect(x, y, w, h);
    context.globalAlpha = 1;
    if (w < 22 || h < 12) return;
    const label = shortSymbol(item.symbol);
    const text = formatPercent(change);
    const widest = (w - 5) / this.widthOf(label, 650);
    let size = Math.min(26, h * 0.36, widest);
    const small = Math.min(Math.max(8, Math.min(size * 0.62, 14)), (w - 4) / this.widthOf(text, 500));
    const hasChange = size >= 9 && small >= 7.5 && h >= size * 2.4;
    if (!hasChange) size = Math.min(13, h * 0.72, widest);
    if (size < 7.5) return;
    context.fillStyle = this.ink;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = `650 ${size}px ${this.font}`;
    context.fillText(label, x + w / 2, y + h / 2 - (hasChange ? size * 0.42 : 0));
    if (!hasChange) return;
    context.font = `500 ${small}px ${this.font}`;
    context.fillText(text, x + w / 2, y + h / 2 + size * 0.62);
  }

  /** Width of a text in a font of one pixel. @param {string} text @param {number} weight */
  widthOf(text, weight) {
    const key = `${weight}${text}`;
    let width = this.widths.get(key);
    if (width === undefined) {
      if (this.widths.size > WIDTHS_MAX) this.widths.clear();
      this.context.font = `${weight} 100px ${this.font}`;
      width = this.context.measureText(text).width / 100;
      this.widths.set(key, width);
    }
    return width;
  }

  /** @param {PointerEvent | MouseEvent} event */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return this.cells.find(({ rect }) => x >= rect.x && x < rect.x + rect.w && y >= rect.y && y < rect.y + rect.h);
  }

  /** @param {PointerEvent} event */
  hover(event) {
    const cell = this.at(event);
    this.tooltip.hidden = !cell;
    if (!cell) return;
    const { columns } = this.market;
    const n = cell.item.number;
    const change = this.market.change(n);
    const standing = this.market.standing(n);
    const facts = [
      ["Last", formatPrice(columns.price[n]), ""],
      ["Change", formatPercent(change), direction(change)],
      ["Market cap", columns.market_cap[n] === null ? "–" : `$${formatShort(columns.market_cap[n])}`, ""],
      ["Turnover", `$${formatShort(columns.dollar_volume[n])}`, ""],
      ...[["Price from", sourceText(standing), ""], ["State", wordText(standing, Date.now()), ""]].filter(([, text]) => text),
    ];
    this.tooltip.replaceChildren(
      make("strong", { text: cell.item.symbol }),
      make("span", { class: "muted", text: [columns.name[n], columns.industry[n] || columns.sector[n]].filter(Boolean).join(" · ") }),
      make("dl", {}, facts.flatMap(([name, text, way]) => [make("dt", { text: name }), make("dd", { class: way, text })])),
    );
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const { offsetWidth: width, offsetHeight: height } = this.tooltip;
    this.tooltip.style.left = `${Math.max(2, x + 14 + width > box.width ? x - width - 10 : x + 14)}px`;
    this.tooltip.style.top = `${Math.max(2, Math.min(y + 12, box.height - height - 2))}px`;
  }

  fillTable() {
    if (this.table.hidden) return;
    const { columns } = this.market;
    const numbers = this.market.items(this.area).sort((a, b) => b.size - a.size).slice(0, TABLE_ROWS);
    const head = make("tr", {}, ["Symbol", "Sector", "Last", "Change", this.area === "cap" ? "Market cap" : "Turnover"].map((text) => make("th", { scope: "col", text })));
    const rows = numbers.map(({ symbol, number, size }) => {
      const change = this.market.change(number);
      return make("tr", {}, [
        make("td", {}, [make("button", { type: "button", text: symbol })]),
        make("td", { text: columns.sector[number] || "Other" }),
        make("td", { text: formatPrice(columns.price[number]) }),
        make("td", { class: direction(change), text: formatPercent(change) }),
        make("td", { text: `$${formatShort(size)}` }),
      ]);
    });
    this.table.replaceChildren(make("table", {}, [make("thead", {}, [head]), make("tbody", {}, rows)]));
  }

  /** @param {string} symbol */
  select(symbol) {
    this.selected = symbol;
    this.draw();
  }
}

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} width */
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length - 1;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end -= 1;
  return end > 1 ? `${text.slice(0, end).trimEnd()}…` : "";
}

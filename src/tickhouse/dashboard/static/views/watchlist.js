// The symbols: searched, sorted, chosen; rows are updated in place, four times a second at most.

import { direction, formatCount, formatPercent, formatPrice, shortSymbol, venueOf } from "../model/format.js";
import { markOf } from "../model/standing.js";
import { byId, make, setText } from "./dom.js";

const ROWS_MAX = 250;
const FLASH_MS = 700;

/** @typedef {{element: HTMLElement, mark: HTMLElement, price: HTMLElement, change: HTMLElement, last: number | null, flashedAt: number}} Row */

export class Watchlist {
  /**
   * @param {import("../model/market.js").Market} market
   * @param {(symbol: string) => void} onSelect
   */
  constructor(market, onSelect) {
    this.market = market;
    this.onSelect = onSelect;
    this.selected = "";
    this.sort = "active";
    this.isFalling = true;
    /** @type {Map<number, Row>} */
    this.rows = new Map();
    /** @type {number[]} */
    this.order = [];
    this.list = byId("watch-list");
    /** @type {HTMLInputElement} */
    this.search = byId("search");
    this.count = byId("watch-count");
    this.search.addEventListener("input", () => this.arrange());
    this.search.addEventListener("keydown", (event) => this.searchKey(event));
    this.list.addEventListener("click", (event) => {
      const symbol = /** @type {HTMLElement} */ (event.target).closest(".row")?.getAttribute("data-symbol");
      if (symbol) onSelect(symbol);
    });
    this.list.addEventListener("keydown", (event) => this.listKey(event));
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => this.sortBy(button.getAttribute("data-sort") ?? ""));
    }
  }

  /** @param {KeyboardEvent} event */
  searchKey(event) {
    if (event.key === "Escape") {
      this.search.value = "";
      this.arrange();
      this.search.blur();
    } else if (event.key === "Enter" && this.order.length) {
      this.onSelect(this.market.columns.symbol[this.order[0]]);
    } else if (event.key === "ArrowDown") {
      event.preventDefault();
      this.list.focus();
    }
  }

  /** @param {KeyboardEvent} event */
  listKey(event) {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (!step || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.move(step);
  }

  /** @param {number} step */
  move(step) {
    if (!this.order.length) return;
    const at = this.order.findIndex((number) => this.market.columns.symbol[number] === this.selected);
    const next = Math.max(0, Math.min(this.order.length - 1, at + step));
    this.onSelect(this.market.columns.symbol[this.order[next]]);
  }

  /** @param {string} column */
  sortBy(column) {
    if (this.sort === column) {
      if (this.isFalling === (column !== "symbol")) this.isFalling = !this.isFalling;
      else this.sort = "active";
    } else {
      this.sort = column;
      this.isFalling = column !== "symbol";
    }
    if (this.sort === "active") this.isFalling = true;
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.setAttribute("aria-pressed", String(button.getAttribute("data-sort") === this.sort));
    }
    this.arrange();
  }

  /** Build the rows anew: after a snapshot, a search, another order. */
  arrange() {
    const { symbol, name } = this.market.columns;
    const wanted = this.search.value.trim().toUpperCase();
    const found = symbol.map((_, number) => number).filter((number) => !wanted || symbol[number].includes(wanted) || name[number].toUpperCase().includes(wanted));
    const sign = this.isFalling ? -1 : 1;
    found.sort((a, b) => this.compare(a, b) * sign || symbol[a].localeCompare(symbol[b]));
    if (wanted) found.sort((a, b) => Number(symbol[b].startsWith(wanted)) - Number(symbol[a].startsWith(wanted)));
    this.order = found.slice(0, ROWS_MAX);
    const elements = this.order.map((number) => this.row(number).element);
    if (elements.length) this.list.replaceChildren(...elements);
    else this.list.replaceChildren(make("p", { class: "watch-empty", text: wanted ? `No symbol matches “${this.search.value.trim()}”` : "No symbols yet" }));
    setText(this.count, this.market.size ? `${formatCount(found.length)}${wanted ? ` of ${formatCount(this.market.size)}` : ""}` : "");
    this.update(this.order, false);
    this.stand(this.order);
    this.mark();
  }

  /** @param {number} a @param {number} b */
  compare(a, b) {
    const { symbol, price, dollar_volume } = this.market.columns;
    if (this.sort === "symbol") return symbol[a].localeCompare(symbol[b]);
    if (this.sort === "price") return (price[a] ?? 0) - (price[b] ?? 0);
    if (this.sort === "change") return (this.market.change(a) ?? -1e9) - (this.market.change(b) ?? -1e9);
    return dollar_volume[a] - dollar_volume[b];
  }

  /** @param {number} number @returns {Row} */
  row(number) {
    let row = this.rows.get(number);
    if (!row) {
      const { symbol, name } = this.market.columns;
      const price = make("span", { class: "price" });
      const change = make("span", { class: "change" });
      const mark = make("span", { class: "mark" });
      const element = make("div", { class: "row", role: "option", "aria-selected": "false", id: `row-${number}`, "data-symbol": symbol[number], title: titleOf(symbol[number], name[number]) }, [this.label(symbol[number], mark), price, change]);
      row = { element, mark, price, change, last: null, flashedAt: 0 };
      this.rows.set(number, row);
    }
    return row;
  }

  /** @param {string} symbol @param {HTMLElement} mark */
  label(symbol, mark) {
    const venue = venueOf(symbol);
    return make("b", { text: shortSymbol(symbol) }, [mark, ...(venue ? [make("span", { class: "venue", text: venue })] : [])]);
  }

  /** What the price alone does not say: stale, quiet, polled. @param {number[]} numbers */
  stand(numbers) {
    const now = Date.now();
    for (const number of numbers) {
      const row = this.rows.get(number);
      if (!row) continue;
      const { kind, text, title } = markOf(this.market.standing(number), now);
      row.element.dataset.mark = kind;
      setText(row.mark, text);
      const { symbol, name } = this.market.columns;
      row.element.title = [titleOf(symbol[number], name[number]), title].filter(Boolean).join(" · ");
    }
  }

  /** @param {number[]} numbers rows whose price changed @param {boolean} [isLive] */
  update(numbers, isLive = true) {
    const now = performance.now();
    for (const number of numbers) {
      const row = this.rows.get(number);
      const price = this.market.columns.price[number];
      if (!row?.element.isConnected) continue;
      setText(row.price, formatPrice(price));
      const change = this.market.change(number);
      setText(row.change, formatPercent(change));
      row.change.className = `change ${direction(change)}`;
      if (isLive && row.last !== null && price !== null && price !== row.last && now - row.flashedAt > 1000) {
        flash(row.price, price > row.last ? "flash-up" : "flash-down");
        row.flashedAt = now;
      }
      row.last = price;
    }
  }

  /** @param {string} symbol */
  select(symbol) {
    this.selected = symbol;
    this.mark(true);
  }

  mark(isMoved = false) {
    for (const element of this.list.querySelectorAll('[aria-selected="true"]')) element.setAttribute("aria-selected", "false");
    const number = this.market.numbers.get(this.selected);
    const element = number === undefined ? undefined : this.rows.get(number)?.element;
    if (!element?.isConnected) return this.list.removeAttribute("aria-activedescendant");
    element.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", element.id);
    if (isMoved) scrollWithin(this.list, element);
  }
}

/** Scroll the list only, never the page. @param {HTMLElement} list @param {HTMLElement} element */
function scrollWithin(list, element) {
  const top = element.offsetTop - list.offsetTop;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + element.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + element.offsetHeight - list.clientHeight;
}

/** @param {string} symbol @param {string} name */
const titleOf = (symbol, name) => [venueOf(symbol) || !name ? symbol : "", name].filter(Boolean).join(" · ");

/** @param {HTMLElement} element @param {string} name */
function flash(element, name) {
  element.classList.remove("flash-up", "flash-down");
  void element.offsetWidth;
  element.classList.add(name);
  setTimeout(() => element.classList.remove(name), FLASH_MS);
}

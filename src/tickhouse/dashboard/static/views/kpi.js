// The row of figures. Totals are as of published gold; movers and breadth follow the live prices.

import { counted, direction, formatCount, formatDuration, formatPercent, formatShort, shortSymbol } from "../model/format.js";
import { byId, make, setText } from "./dom.js";

/** @type {[string, string][]} */
const CARDS = [
  ["trades", "Trades today"],
  ["turnover", "Dollar volume"],
  ["active", "Most active"],
  ["movers", "Top gainer / loser"],
  ["breadth", "Breadth"],
  ["lag", "Log → gold lag"],
];

export class KpiRow {
  /** @param {(symbol: string) => void} onSelect */
  constructor(onSelect) {
    /** @type {Record<string, {value: HTMLElement, note: HTMLElement}>} */
    this.cards = {};
    const row = byId("kpis");
    for (const [name, label] of CARDS) {
      const value = make("span", { class: "kpi-value", id: `kpi-${name}`, text: "–" });
      const note = make("span", { class: "kpi-note" });
      const card = make("div", { class: "kpi", "data-kpi": name }, [make("span", { class: "kpi-label", text: label }), value, note]);
      if (name === "breadth") card.append((this.bar = make("div", { class: "breadth", "aria-hidden": "true" })));
      this.cards[name] = { value, note };
      row.append(card);
    }
    row.addEventListener("click", (event) => {
      const symbol = /** @type {HTMLElement} */ (event.target).closest("button")?.dataset.symbol;
      if (symbol) onSelect(symbol);
    });
  }

  /** @param {any} kpi @param {any} hb */
  show(kpi, hb) {
    if (kpi) {
      const gap = kpi.incomplete ? `incomplete: ${kpi.missing_s ? `${formatDuration(kpi.missing_s * 1000)} missing` : "gaps"} · ` : "";
      this.text("trades", formatCount(kpi.trades), `${gap}${counted(kpi.symbols, "symbol")} · session ${kpi.session_date}`);
      const isTraded = kpi.dollar_volume > 0 || kpi.quoted === 0;
      this.text("turnover", isTraded ? `$${formatShort(kpi.dollar_volume)}` : "–", kpi.quoted ? `${counted(kpi.quoted, "symbol")} by quotes, no volume` : gap ? "incomplete: sum of what was received" : "sum of price × size");
      for (const name of ["trades", "turnover"]) this.cards[name].note.classList.toggle("incomplete", gap !== "");
      this.symbols("active", [[kpi.most_active, ""]]);
      this.cards.active.note.textContent = kpi.most_active ? `$${formatShort(kpi.most_active.value)} traded` : "";
      this.symbols("movers", [[kpi.gainer, direction(kpi.gainer?.value)], [kpi.loser, direction(kpi.loser?.value)]]);
      const changes = [kpi.gainer, kpi.loser].filter(Boolean);
      this.cards.movers.note.replaceChildren(
        ...changes.flatMap((mover, i) => [i ? " / " : "", make("span", { class: direction(mover.value), text: formatPercent(mover.value) })]),
      );
      this.breadth(kpi);
    }
    this.lag(hb);
  }

  /** @param {string} name @param {string} value @param {string} note */
  text(name, value, note) {
    setText(this.cards[name].value, value);
    setText(this.cards[name].note, note);
    this.cards[name].note.title = note;
  }

  /** @param {string} name @param {[any, string][]} movers */
  symbols(name, movers) {
    const shown = movers.filter(([mover]) => mover);
    const key = shown.map(([mover, way]) => mover.symbol + way).join();
    const { value } = this.cards[name];
    if (value.dataset.key === key) return;
    value.dataset.key = key;
    const parts = shown.flatMap(([mover, way], i) => [
      i ? make("span", { class: "muted", text: " / " }) : "",
      make("button", { type: "button", class: way, "data-symbol": mover.symbol, text: shortSymbol(mover.symbol), title: `Show ${mover.symbol}` }),
    ]);
    value.replaceChildren(...(parts.length ? parts : ["–"]));
    value.classList.toggle("long", (value.textContent ?? "").length > 12);
  }

  /** @param {any} kpi */
  breadth(kpi) {
    const { value, note } = this.cards.breadth;
    const counts = [[kpi.advancers, "up", "▲"], [kpi.decliners, "down", "▼"]];
    const key = `${kpi.advancers}/${kpi.decliners}`;
    if (value.dataset.key !== key) {
      value.dataset.key = key;
      value.replaceChildren(
        ...counts.flatMap(([count, way, arrow], i) => [i ? "  " : "", make("span", { class: way, text: `${arrow} ${formatCount(count)}` })]),
      );
    }
    setText(note, `${formatCount(kpi.advancers)} up, ${formatCount(kpi.decliners)} down, ${formatCount(kpi.unchanged)} flat`);
    const parts = [["adv", kpi.advancers], ["dec", kpi.decliners], ["same", kpi.unchanged]];
    this.bar?.replaceChildren(
      ...parts.map(([kind, count]) => {
        const part = make("i", { class: kind });
        part.style.flexGrow = String(count);
        return part;
      }),
    );
  }

  /** @param {any} hb */
  lag(hb) {
    const { value, note } = this.cards.lag;
    const isKnown = hb?.lag_ms !== null && hb?.lag_ms !== undefined && hb?.gold !== null;
    setText(value, isKnown ? formatDuration(hb.lag_ms) : "–");
    value.className = `kpi-value ${isKnown && hb.lag_ms > 30_000 ? "down" : ""}`.trim();
    setText(note, isKnown ? `${counted(hb.behind, "frame")} not in gold yet` : "no gold published yet");
  }
}


// Connection, badge, source, clock; and the banner that explains what is not as it should be.

import { formatClock, formatCount, formatDuration } from "../model/format.js";
import { marketText, opensIn } from "../model/standing.js";
import { byId, setText } from "./dom.js";

const LABELS = {
  connecting: "Connecting",
  waiting: "Waiting",
  live: "Live",
  closed: "Market closed",
  stale: "Stale",
  disconnected: "Disconnected",
};
/** @type {Record<string, string>} */
const REASON_LABELS = { ended: "Feed ended", quiet: "Quiet", lost: "Connection lost" };

export class TopBar {
  constructor() {
    this.pill = byId("pill-text");
    this.detail = byId("pill-detail");
    this.badge = byId("badge");
    this.source = byId("source");
    this.rate = byId("rate");
    this.age = byId("age");
    this.clock = byId("clock");
    this.session = byId("session");
    this.offset = byId("clock-offset");
    this.banner = byId("banner");
    this.bannerText = byId("banner-text");
    this.bannerCode = byId("banner-code");
  }

  /**
   * @param {{state: import("../model/connection.js").State, reason: string, hb: any, tickAgeMs: number | null, tickAtMs: number | null, nowMs: number}} view
   */
  show({ state, reason, hb, tickAgeMs, tickAtMs, nowMs }) {
    if (document.body.dataset.state !== state) document.body.dataset.state = state;
    if (document.body.dataset.reason !== reason) document.body.dataset.reason = reason;
    setText(this.pill, REASON_LABELS[reason] ?? LABELS[state]);
    const seconds = tickAgeMs === null ? "" : formatDuration(Math.floor(tickAgeMs / 1000) * 1000).replace(".0", "");
    const isLate = state === "stale" || state === "disconnected";
    setText(this.detail, isLate ? detailOf(reason, seconds) : state === "closed" ? opensIn(hb.market, nowMs) : "");
    const isLive = hb?.badge === "LIVE";
    /** @type {HTMLElement} */ (this.session.parentElement).hidden = !isLive;
    if (isLive) setText(this.session, marketText(hb.market, nowMs));
    this.skew(hb?.clock_offset_ms ?? null);
    setText(this.clock, formatClock(nowMs));
    setText(this.age, tickAgeMs === null ? "–" : formatDuration(tickAgeMs));
    setText(this.rate, hb && state === "live" ? formatCount(hb.rate) : state === "stale" || !hb ? "–" : "0");
    const badge = hb?.badge ?? "";
    this.badge.hidden = badge === "";
    if (this.badge.dataset.badge !== badge) {
      this.badge.dataset.badge = badge;
      setText(this.badge, badge);
      document.body.dataset.badge = badge;
      this.badge.title = BADGE_TITLES[badge] ?? "";
    }
    setText(this.source, hb?.feed ?? "");
    this.explain(state, reason, hb, tickAtMs);
  }

  /** The server's clock, where it is far from this machine's. @param {number | null} offsetMs */
  skew(offsetMs) {
    this.offset.hidden = offsetMs === null;
    if (offsetMs === null) return;
    const size = formatDuration(Math.abs(offsetMs));
    setText(this.offset, `clock ${offsetMs > 0 ? "+" : "−"}${size}`);
    this.offset.title = `The feed's server is ${size} ${offsetMs > 0 ? "ahead of" : "behind"} this machine's clock: set the clock, or ages and staleness are wrong`;
  }

  /** @param {string} state @param {string} reason @param {any} hb @param {number | null} tickAtMs */
  explain(state, reason, hb, tickAtMs) {
    const at = tickAtMs ? ` Values are as of ${formatClock(tickAtMs)} UTC.` : "";
    let text = "";
    let code = "";
    if (state === "waiting") {
      text = "Waiting for the first tick. Start everything with";
      code = "tickhouse up";
    } else if (reason === "socket") text = `No connection to the server; trying again.${at}`;
    else if (reason === "silence") text = `The server is silent.${at}`;
    else if (reason === "ended") text = `The feed has ended: ${hb.closed}.${at}`;
    else if (reason === "lost") text = `The feed's connection was lost (${hb.lost}); it is trying again.${at}`;
    else if (reason === "quiet") text = `Connected, but no symbol trades: halted or quiet.${at}`;
    else if (reason === "feed") text = `No new trades: the feed is down, or nothing trades.${at}`;
    else if (hb?.fault) text = `The server has a problem and keeps trying: ${hb.fault}`;
    this.banner.hidden = text === "";
    setText(this.bannerText, text);
    this.bannerCode.hidden = code === "";
    setText(this.bannerCode, code);
  }
}

/** @type {Record<string, string>} */
const BADGE_TITLES = {
  SIMULATED: "These trades are made up by a simulator",
  REPLAY: "These trades were recorded earlier",
  LIVE: "These trades come from a live feed",
};

/** @param {string} reason @param {string} seconds */
function detailOf(reason, seconds) {
  if (reason === "feed" || reason === "quiet") return `no trade for ${seconds}`;
  return reason === "ended" || reason === "lost" ? "" : "server";
}

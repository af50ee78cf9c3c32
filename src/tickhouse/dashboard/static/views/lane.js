// The stage lane: feed → record → land → load → build → serve, and the last audit beside it.

import { counted, formatCount, formatDuration, formatShort } from "../model/format.js";
import { coverageSum } from "../model/standing.js";
import { byId, make } from "./dom.js";

/** What each stage says in its first and second line, from the facts of its status file. */
const LINES = {
  /** @param {any} f */ record: (f) => [f.frames === undefined ? "" : counted(f.frames, "frame"), f.refused ? `${formatCount(f.refused)} refused` : f.frames === undefined ? "" : "durable at commit"],
  /** @param {any} f */ land: (f) => [f.records === undefined ? "" : counted(f.records, "record"), f.objects === undefined ? "" : counted(f.objects, "object")],
  /** @param {any} f */ load: (f) => [f.rows === undefined ? "" : counted(f.rows, "row"), f.load_id ? `load ${formatCount(f.load_id)}` : ""],
  /** @param {any} f */ build: (f) => [f.builds === undefined ? "" : counted(f.builds, "build"), f.build_seconds === undefined ? "" : `last took ${formatDuration(f.build_seconds * 1000)}`],
  /** @param {any} f */ serve: (f) => [f.viewers === undefined ? "" : counted(f.viewers, "viewer"), f.skipped_records ? `${formatShort(f.skipped_records)} frames skipped` : f.viewers === undefined ? "" : "follows the log's end"],
};

const HEALTH = { running: "good", starting: "busy", stopped: "warn", silent: "warn", failed: "bad", unreadable: "bad", unknown: "" };

export class Lane {
  /** @param {any} pipeline @param {string} state of the page */
  show(pipeline, state) {
    if (!pipeline) return;
    byId("lane").replaceChildren(feed(pipeline.feed, state), ...pipeline.stages.map((/** @type {any} */ item) => stage(item, pipeline)));
    this.audit(pipeline.audit);
  }

  /** @param {any} audit */
  audit(audit) {
    const host = byId("audit");
    host.dataset.health = audit ? (audit.ok ? "good" : "bad") : "";
    if (!audit) {
      return host.replaceChildren(head("Audit", "not run yet"), make("span", { class: "stage-sub" }, ["prove it: ", make("code", { text: "tickhouse audit" })]));
    }
    const counts = `lost ${count(audit.lost)} · duplicated ${count(audit.duplicated)} · corrupt ${count(audit.corrupt)}`;
    const age = audit.age_ms === null ? "" : `${formatDuration(audit.age_ms)} ago`;
    host.replaceChildren(head(audit.ok ? "Audit clean" : "Audit found a problem", age), make("span", { class: "stage-fact", text: counts }));
  }
}

/** @param {unknown} value a number, or a list of what was found */
const count = (value) => (Array.isArray(value) ? formatCount(value.length) : typeof value === "number" ? formatCount(value) : "–");

/** @param {string} name @param {string} state */
const head = (name, state) => make("span", { class: "stage-head" }, [make("i", { class: "dot", "aria-hidden": "true" }), name, make("span", { class: "state", text: state })]);

/** @param {any} feedFacts @param {string} state */
function feed(feedFacts, state) {
  const isOpen = feedFacts.connections > 0;
  const isWell = isOpen && !feedFacts.lost && (state === "live" || state === "closed");
  const health = isWell ? "good" : isOpen || feedFacts.closed ? "warn" : "";
  const label = linksText(feedFacts);
  const rate = feedFacts.rate === null ? "– trades/s" : `${formatCount(feedFacts.rate)} trades/s`;
  const first = [rate, coverageSum(feedFacts.coverage)].filter(Boolean).join(" · ");
  const second = gapsText(feedFacts);
  return make("li", { class: "stage", "data-stage": "feed", "data-health": feedFacts.gaps && health === "good" ? "warn" : health }, [
    head("feed", label),
    make("span", { class: "stage-fact", text: first, title: first }),
    make("span", { class: "stage-sub", text: second, title: second }),
  ]);
}

/** What is connected: a filler of gaps is not worth a word while it works. @param {any} facts */
function linksText(facts) {
  const links = facts.links ?? [];
  if (!links.length) return "no session yet";
  if (facts.connections === 0) return facts.closed ?? "closed";
  const streams = links.filter((/** @type {any} */ link) => link.role === "stream");
  if (streams.length) return `${facts.connections} of ${streams.length} open`;
  const parts = links.filter((/** @type {any} */ link) => link.role !== "filler" || !link.is_open);
  const isWell = parts.every((/** @type {any} */ link) => link.is_open);
  const names = parts.map((/** @type {any} */ link) => (link.is_open ? link.role : `${link.role} closed: ${link.closed}`));
  return `${names.join(isWell ? " and " : ", ")}${isWell ? " open" : ""}`;
}

/** @param {any} facts */
function gapsText(facts) {
  const filled = facts.gaps_filled ? `${formatCount(facts.gaps_filled)} filled` : "";
  if (!facts.gaps) return filled ? `no gap open, ${filled}` : "no gap recorded";
  return `${counted(facts.gaps, "gap")}${filled ? ` (${filled})` : ""}, last: ${facts.last_gap}`;
}

/** What a stage complains of, "" if of nothing. @param {any} facts */
function trouble(facts) {
  if (facts.error) return facts.error;
  if (facts.quarantined?.length) return `${counted(facts.quarantined.length, "object")} quarantined`;
  const named = Object.entries({ ...facts.blocked, ...facts.alarms })[0];
  return named ? named.join(": ") : "";
}

/** @param {any} item @param {any} pipeline */
function stage(item, pipeline) {
  const lines = LINES[/** @type {keyof typeof LINES} */ (item.name)](item.facts);
  const problem = trouble(item.facts);
  if (problem) lines[1] = problem;
  else if (item.name === "build" && pipeline.gold.lag_ms !== null && pipeline.gold.gold !== null) {
    lines[1] = `gold lags ${formatDuration(pipeline.gold.lag_ms)}`;
  }
  const age = item.age_ms !== null && item.state !== "running" ? `${item.state} · ${formatDuration(item.age_ms)} ago` : item.state;
  const health = problem ? "bad" : (HEALTH[/** @type {keyof typeof HEALTH} */ (item.state)] ?? "");
  return make("li", { class: "stage", "data-stage": item.name, "data-health": health }, [
    head(item.name, item.state === "unknown" ? "not run" : age),
    make("span", { class: "stage-fact", text: lines[0] || "–" }),
    make("span", { class: "stage-sub", text: lines[1] || "", title: lines[1] || "" }),
  ]);
}

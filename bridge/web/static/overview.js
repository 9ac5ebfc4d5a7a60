// The first view: a card for the entrance and for each sink, the charts, and facts about the rest.

import { Chart, available } from "./charts.js";
import { byId, el, facts, put, sync } from "./dom.js";
import { count, duration, rate, size, when } from "./format.js";
import { link } from "./place.js";

const STATES = {
  stale: "silent (stale)",
  flat: "unchanged (flat)",
  ahead: "clock ahead",
  behind: "clock behind",
  disorder: "out of time order",
};

let charts;

/** Show the document of `api/overview`. */
export function overview(data) {
  byId("no-charts").hidden = available();
  byId("local").hidden = data.environment !== "LOCAL";
  put(byId("environment"), data.environment);
  put(byId("as-of"), when(data.now));
  put(byId("version"), data.version);
  cards(data);
  drawCharts(data.series);
  facts(byId("journal"), journal(data.journal));
  facts(byId("broker"), broker(data));
  facts(byId("ledger"), ledger(data.ledger));
  facts(byId("tag-states"), tags(data));
}

function cards(data) {
  const make = ({ name }) => el("li", {}, el("h3", {}, name), el("p"), el("dl"));
  const update = (node, card) => {
    const [, state, list] = node.children;
    node.className = card.wrong ? "wrong" : "";
    put(state, ...card.state);
    facts(list, card.facts);
  };
  const all = [entrance(data), ...data.sinks.map(sink)];
  sync(byId("cards"), all, ({ name }) => name, make, update);
}

function entrance(data) {
  return {
    name: "Received",
    wrong: !data.mqtt.connected,
    state: [data.mqtt.connected ? "✓ connected to the broker" : "✗ not connected to the broker"],
    facts: [
      ["Now", rate(data.rates.received)],
      ["Sites", el("a", { href: link("sites") }, count(data.sites_total))],
      ["Tags", el("a", { href: link("tags") }, count(data.tags_total))],
      ["Dead letters", el("a", { href: link("letters") }, count(data.dead_letters_total))],
    ],
  };
}

function sink(state) {
  return {
    name: state.name,
    wrong: Boolean(state.held ?? state.last_error),
    state: trouble(state),
    facts: [
      ["Settled now", rate(state.settled_per_second)],
      ["Waiting", count(state.pending)],
      ["Oldest", state.pending ? duration(state.oldest_pending_seconds) : "–"],
      ["Latency p50", duration(state.latency_p50_seconds)],
      ["Latency p99", duration(state.latency_p99_seconds)],
    ],
  };
}

function trouble({ held, last_error: error, error_since: since, remedy }) {
  if (held === null && error === null) return ["✓ takes readings"];
  const moment = since ? ["Since ", when(since), ". "] : [];
  return [`✗ ${held ?? error}`, el("span", {}, ...moment, remedy ?? "")];
}

function drawCharts(series) {
  charts ??= {
    throughput: new Chart(byId("chart-throughput"), rate, { zero: true }),
    pending: new Chart(byId("chart-pending"), count, { zero: true, whole: true }),
    age: new Chart(byId("chart-age"), duration, { zero: true }),
  };
  const lines = (bySink, words = "") =>
    Object.entries(bySink).map(([name, values]) => ({ label: `${words}${name}`, values }));
  const received = { label: "received", values: series.received };
  charts.throughput.show(series.at, [received, ...lines(series.settled, "settled: ")]);
  charts.pending.show(series.at, lines(series.pending));
  charts.age.show(series.at, lines(series.oldest_pending_seconds));
}

function journal(state) {
  const full = state.max_bytes ? state.bytes / state.max_bytes : 0;
  const meter = el("meter", { min: "0", max: "1", high: "0.8", value: full.toFixed(3), "aria-label": "How full the journal is" });
  return [
    ["Holds", [`${size(state.bytes)} of ${size(state.max_bytes)} `, meter]],
    ["Full as things go", never(state.seconds_until_full)],
    ["Full if nothing were settled any more", never(state.seconds_until_full_without_sinks)],
    ["Repeats are recognised for", duration(state.dedupe_window_seconds)],
  ];
}

const never = (seconds) => (seconds === null ? "not in sight" : `in ${duration(seconds)}`);

function broker({ mqtt, started_at: started, ledger: { taken } }) {
  return [
    ["Bridge runs since", when(started)],
    ["Messages taken since then", count(taken)],
    ["Sessions the broker forgot", count(mqtt.sessions_lost)],
    ["Dropped by the broker", mqtt.broker_dropped === null ? "the broker does not say" : count(mqtt.broker_dropped)],
    ["QoS 0 dropped", count(mqtt.qos0_dropped)],
    ["Retained copies ignored", count(mqtt.retained_ignored)],
  ];
}

function ledger({ balanced, totals }) {
  return [
    ["Balances", balanced ? "✓ yes" : "✗ no"],
    ["Received", count(totals.received)],
    ["= accepted", count(totals.accepted)],
    ["+ duplicates", count(totals.duplicates)],
    ["+ refused", count(totals.rejected)],
    ...Object.entries(totals.sinks).map(([name, sink]) => [name, sinkLine(sink)]),
  ];
}

/** One sink's part of a ledger line. */
export function sinkLine({ settled, pending, dead_lettered: dead, skipped }) {
  const parts = [`${count(settled)} settled`];
  if (pending) parts.push(`${count(pending)} waiting`);
  if (dead) parts.push(`${count(dead)} dead`);
  if (skipped) parts.push(`${count(skipped)} skipped`);
  return parts.join(" + ");
}

function tags({ statistics, tags_by_state: states }) {
  if (!statistics.available || !states) return [["Not available", statistics.problem ?? "the figures are being made"]];
  const behind = statistics.behind_seconds > 30 ? [["These figures are behind by", duration(statistics.behind_seconds)]] : [];
  const linked = Object.entries(STATES).map(([state, words]) => [
    words,
    el("a", { href: link("tags", { state }) }, count(states[state] ?? 0)),
  ]);
  return [...linked, ...behind];
}

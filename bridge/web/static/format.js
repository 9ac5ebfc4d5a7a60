// Figures and times as people read them. null is always a dash.

import { el } from "./dom.js";

const NONE = "–";
const UNITS = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const exact = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });

const known = (value, shown) => (value === null || value === undefined ? NONE : shown(value));

export const count = (value) => known(value, (n) => whole.format(n));
export const value = (number) => known(number, (n) => (extreme(n) ? n.toPrecision(6) : exact.format(n)));
export const rate = (value) => known(value, (n) => `${n < 100 ? short.format(n) : whole.format(n)}/s`);
export const share = (value) => known(value, (n) => `${short.format(n * 100)} %`);

const extreme = (n) => n !== 0 && (Math.abs(n) >= 1e9 || Math.abs(n) < 1e-4);

/** Bytes in the unit that leaves one to four digits. */
export function size(bytes) {
  return known(bytes, (n) => {
    let unit = 0;
    while (n >= 1024 && unit < 3) [n, unit] = [n / 1024, unit + 1];
    return `${unit ? n.toFixed(1) : n} ${["B", "KiB", "MiB", "GiB"][unit]}`;
  });
}

/** Seconds in the two largest units: `3 min 5 s`. */
export function duration(seconds) {
  return known(seconds, (n) => {
    if (n <= 0) return "0 s";
    if (n < 1) return `${Math.round(n * 1000)} ms`;
    if (n < 10) return `${n.toFixed(1)} s`;
    return inUnits(Math.floor(n)).slice(0, 2).join(" ");
  });
}

function inUnits(left) {
  const parts = [];
  for (const [length, unit] of UNITS) {
    const number = Math.floor(left / length);
    left -= number * length;
    if (number || parts.length) parts.push(`${number} ${unit}`);
  }
  return parts;
}

/** How long ago, in words: an age below a second is `now`. */
export const ago = (seconds) => known(seconds, (n) => (n < 1 ? "now" : `${coarse(n)} ago`));

/** A duration in its largest unit, with a second one from an hour on. */
export function coarse(seconds) {
  return known(seconds, (n) => inUnits(Math.max(0, Math.floor(n))).slice(0, n < 3600 ? 1 : 2).join(" ") || "0 s");
}

/** A moment (ISO 8601) as a time element: the viewer's clock, with UTC for whoever points at it. */
export function when(iso) {
  return iso ? el("time", { datetime: iso, title: `${iso} (UTC)` }, clock(new Date(iso))) : NONE;
}

/** hh:mm:ss by the viewer's clock, with the date unless it is today. */
export function clock(date) {
  const time = date.toLocaleTimeString("en-GB");
  const today = new Date().toDateString() === date.toDateString();
  return today ? time : `${date.toLocaleDateString("en-CA")} ${time}`;
}

/** The sites' ledger has messages of malformed topics under an empty name. */
export const siteName = (site) => site || "(malformed topics)";

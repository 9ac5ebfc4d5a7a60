// The banner: is everything all right, and if not, what, since when, and what to do about it.

import { byId, el, put, sync } from "./dom.js";
import { count, when } from "./format.js";

const MARKS = { ok: "✓", attention: "!", wrong: "✗" };

/** Show the overview's verdict and findings. */
export function verdict({ verdict: level, findings, environment }) {
  const headline = words(level, findings);
  announce(level, headline);
  document.title = `${headline} – FCTS bridge ${environment}`;
  findingsList(findings);
}

/** Show that the bridge does not answer. Everything else on the page stays as it was then. */
export function unreachable(error, since, seconds) {
  const tries = `Asked again every ${count(seconds)} s.`;
  const cause = error.status ? `The bridge refuses: ${error.message}.` : "The bridge does not answer.";
  const what = `${cause} What is shown below is no longer renewed.`;
  const remedy = error.status
    ? ""
    : "See whether its process runs, and whether this browser can reach it (VPN, tunnel, port). Readings wait at the broker meanwhile.";
  announce("wrong", "✗ No answer");
  document.title = "✗ No answer – FCTS bridge";
  findingsList([{ level: "wrong", what, since: since.toISOString(), remedy: `${remedy} ${tries}` }]);
}

function words(level, findings) {
  if (level === "ok") return `${MARKS.ok} Everything is all right`;
  const number = findings.filter((finding) => finding.level === level).length;
  if (level === "wrong") {
    return `${MARKS.wrong} ${number === 1 ? "1 thing is wrong" : `${count(number)} things are wrong`}`;
  }
  return `${MARKS.attention} It works; ${number === 1 ? "1 thing needs" : `${count(number)} things need`} attention`;
}

// Read out when it changes, and only then: it has no figures that change by themselves.
function announce(level, headline) {
  const banner = byId("verdict");
  banner.className = `verdict ${level}`;
  put(banner, headline);
}

function findingsList(findings) {
  const make = ({ level }) => el("li", { class: level });
  const update = (node, { level, what, since, remedy }) => {
    const moment = since ? [" Since ", when(since), "."] : [];
    put(node, el("strong", {}, `${MARKS[level]} ${what}`), el("span", {}, ...moment, ` ${remedy ?? ""}`));
  };
  sync(byId("findings"), findings, ({ level, what }) => `${level} ${what}`, make, update);
}

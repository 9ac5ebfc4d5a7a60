// Where the viewer is, in the address's fragment, so that a view can be linked: #tags?state=stale

const VIEWS = ["overview", "sites", "tags", "letters"];

/** @returns {{view: string, parameters: URLSearchParams}} */
export function place() {
  const [view, query] = location.hash.slice(1).split("?", 2);
  return { view: VIEWS.includes(view) ? view : "overview", parameters: new URLSearchParams(query) };
}

/** The link to a view. Empty parameters are left out. */
export function link(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null);
  return `#${view}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** The link to where the viewer is, with some parameters changed. */
export function here(changes) {
  const { view, parameters } = place();
  return link(view, { ...Object.fromEntries(parameters), ...changes });
}

/** Go on at a link without a new entry in the browser's history. */
export function replace(target) {
  history.replaceState(null, "", target);
}

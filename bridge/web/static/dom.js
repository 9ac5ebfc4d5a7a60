// Making and renewing elements. Everything from outside goes through here as text, never as HTML.

/**
 * An element. Children that are strings become text.
 * @param {string} tag
 * @param {Record<string, string | boolean | null | undefined>} attributes null and false: left out
 * @param {...(string | Node)} children
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children);
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

/** Make `content` the children of `node`. What is the same already stays untouched, so that focus
 * and selected text survive a renewal. */
export function put(node, ...content) {
  const fresh = el("div", {}, ...content);
  const same =
    fresh.childNodes.length === node.childNodes.length &&
    [...fresh.childNodes].every((child, index) => child.isEqualNode(node.childNodes[index]));
  if (!same) node.replaceChildren(...fresh.childNodes);
}

const kept = new WeakMap();

/**
 * Let `parent` have one child for each item, in their order; children of former items are reused.
 * @template T
 * @param {Element} parent
 * @param {T[]} items
 * @param {(item: T) => string} keyOf tells one item from another
 * @param {(item: T) => Element} make
 * @param {(node: Element, item: T) => void} update
 */
export function sync(parent, items, keyOf, make, update) {
  const before = kept.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const node = before.get(key) ?? make(item);
    update(node, item);
    after.set(key, node);
  }
  for (const [key, node] of before) if (!after.has(key)) node.remove();
  order(parent, after.values());
  kept.set(parent, after);
}

function order(parent, nodes) {
  let place = parent.firstChild;
  for (const node of nodes) {
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
}

/** A description list: pairs of a label and its content (a string, a node, or an array of both). */
export function facts(list, pairs) {
  const make = ([label]) => el("div", {}, el("dt", {}, label), el("dd"));
  const update = (node, [, content]) => put(node.lastChild, ...[content].flat());
  sync(list, pairs, ([label]) => label, make, update);
}

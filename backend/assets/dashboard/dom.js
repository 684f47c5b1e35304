// Makes and changes elements. Text only ever becomes text nodes: parameters and names come from
// users.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @typedef {Record<string, any> | null} Props attributes, `on…` listeners, and the properties
 *   `value` and `checked`
 */

/**
 * @template {Element} E
 * @param {E} element
 * @param {Props} props
 * @param {Child[]} children
 * @returns {E}
 */
function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;

    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked') Object.assign(element, { [name]: value });
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} element
 * @param {Child[]} children
 */
function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child instanceof Node) element.append(child);
    else if (typeof child === 'string' || typeof child === 'number') element.append(String(child));
  }
}

/**
 * An HTML element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Props} [props]
 * @param {...Child} children
 */
export function h(tag, props = null, ...children) {
  return fill(document.createElement(tag), props, children);
}

/**
 * An SVG element.
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Props} [props]
 * @param {...Child} children
 */
export function s(tag, props = null, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/**
 * Replaces everything in an element.
 * @param {Element} parent
 * @param {...Child} children
 */
export function show(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/**
 * Sets a text only when it differs: that keeps selections, focus and the screen reader's place.
 * @param {Element} element
 * @param {string | number | null | undefined} value
 */
export function setText(element, value) {
  const wanted = String(value ?? '');
  if (element.textContent !== wanted) element.textContent = wanted;
}

/**
 * Sets an attribute only when it differs, and removes it for an empty value.
 * @param {Element} element
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value
 */
export function setAttribute(element, name, value) {
  if (value === undefined || value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, String(value));
  }
}

/**
 * The element of the page with this id, which index.html has.
 * @param {string} id
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no element #${id}`);
  return element;
}

/**
 * A list of elements that stay the same elements as long as their key is in the list.
 * @template T
 * @template {{ element: Element, update(item: T): void }} Row
 * @param {Element} parent
 * @param {(item: T) => string} keyOf
 * @param {(item: T) => Row} makeRow
 * @param {Element | null} [after] stands before the list in the parent, and stays there
 */
export function keyedList(parent, keyOf, makeRow, after = null) {
  /** @type {Map<string, Row>} */
  let rows = new Map();

  /** @param {T[]} items */
  function set(items) {
    /** @type {Map<string, Row>} */
    const next = new Map();
    for (const item of items) {
      const key = keyOf(item);
      if (next.has(key)) continue;

      const row = rows.get(key) ?? makeRow(item);
      row.update(item);
      next.set(key, row);
    }

    // First, so that those that stay are not moved: that loses focus and selection.
    for (const [key, row] of rows) if (!next.has(key)) row.element.remove();
    let at = after === null ? parent.firstElementChild : after.nextElementSibling;
    for (const { element } of next.values()) {
      if (element === at) at = at.nextElementSibling;
      else parent.insertBefore(element, at);
    }
    rows = next;
  }

  return { get: (/** @type {string} */ key) => rows.get(key), set };
}

// Elements from data. Text only ever becomes text nodes: parameters and names come from users.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.setAttribute('class', value);
    else if (name === 'value') element.value = value;
    else if (name === 'checked') element.checked = value;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

export function show(parent, ...children) {
  parent.replaceChildren();
  add(parent, children);
}

// Writing only what differs keeps selections, focus and the screen reader's place.
export function text(element, value) {
  const wanted = value ?? '';
  if (element.textContent !== String(wanted)) element.textContent = wanted;
}

export function attr(element, name, value) {
  if (value === undefined || value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// A list whose children stay the same elements as long as their key stays: `make(item)` gives {element, update(item)}.
export function keyed(parent, key, make) {
  let rows = new Map();
  return {
    get: (id) => rows.get(id),
    set(items) {
      const next = new Map();
      let at = parent.firstElementChild;
      for (const item of items) {
        const id = key(item);
        if (next.has(id)) continue;
        let row = rows.get(id);
        if (row) row.update(item);
        else {
          row = make(item);
          row.update(item);
        }
        next.set(id, row);
        if (row.element === at) at = at.nextElementSibling;
        else parent.insertBefore(row.element, at);
      }
      for (const [id, row] of rows) if (!next.has(id)) row.element.remove();
      rows = next;
    },
  };
}

const ICONS = {
  pending: 'M12 7v5l3 2M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18',
  running: 'M8 5.5v13l11-6.5z',
  completed: 'M5 12.5l4.5 4.5L19 7.5',
  failed: 'M7 7l10 10M17 7L7 17',
  cancelled: 'M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18M6 6l12 12',
  AVAILABLE: 'M5 12.5l4.5 4.5L19 7.5',
  BUSY: 'M8 5.5v13l11-6.5z',
  TEMPORARILY_UNAVAILABLE: 'M7 7l10 10M17 7L7 17',
  deaf: 'M12 4v9M12 17.5v.5',
  home: 'M4 11l8-7l8 7v9h-5v-6h-6v6H4z',
  list: 'M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01',
  chip: 'M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4',
  code: 'M9 5C4 5 9 12 4 12c5 0 0 7 5 7M15 5c5 0 0 7 5 7c-5 0 0 7-5 7',
  back: 'M14 6l-6 6l6 6',
  cores: 'M7 7h10v10H7z',
};

export const icon = (name, label) =>
  s('svg', { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': label ? undefined : 'true', role: label ? 'img' : undefined, 'aria-label': label },
    s('path', { d: ICONS[name] ?? ICONS.pending }));

export const STATUSES = ['pending', 'running', 'completed', 'failed', 'cancelled'];

// A status as icon, word and colour, so that it reads without the colour.
export function statusChip() {
  const chip = h('span', { class: 'chip' });
  let shown;
  return {
    element: chip,
    update(status, word = status) {
      if (shown === status + word) return;
      shown = status + word;
      chip.dataset.status = status;
      show(chip, icon(status), word);
    },
  };
}

export function toast(message, kind = 'info') {
  const item = h('div', { class: `toast ${kind}` }, h('span', null, message),
    h('button', { type: 'button', class: 'plain', 'aria-label': 'Dismiss', onclick: () => item.remove() }, '×'));
  document.getElementById('toasts').append(item);
  setTimeout(() => item.remove(), kind === 'error' ? 12000 : 5000);
}

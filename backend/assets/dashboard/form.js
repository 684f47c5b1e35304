// A form from a JSON Schema (2020-12, as worker types publish it). What the form cannot express is asked for as JSON.
//
// A field is {element, read()}: `read` gives the value, or undefined when nothing was entered. What is wrong with a value is
// the server's to say; here only text that is no number or no JSON is refused.

import { attr, h, show, text } from './dom.js';
import { number, title } from './format.js';

const DEPTH = 8;
let ids = 0;

class FieldError extends Error {
  constructor(path, message) {
    super(message);
    this.path = path;
  }
}

// The schema behind references and single-member allOf, with what stands beside the reference.
function resolve(schema, root) {
  let found = schema === true || schema === undefined ? {} : schema;
  for (let step = 0; step < 20; step += 1) {
    if (typeof found.$ref === 'string' && found.$ref.startsWith('#/')) {
      const { $ref: target, ...beside } = found;
      const parts = target.slice(2).split('/').map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
      found = { ...parts.reduce((at, part) => at?.[part], root), ...beside };
    } else if (Array.isArray(found.allOf) && found.allOf.length === 1) {
      const { allOf: [only], ...beside } = found;
      found = { ...only, ...beside };
    } else break;
  }
  return found;
}

const isNull = (schema) => schema.type === 'null' || ('const' in schema && schema.const === null);

// Without the possibility of null: leaving a field out says the same.
function withoutNull(schema, root) {
  const found = resolve(schema, root);
  const key = found.anyOf ? 'anyOf' : found.oneOf ? 'oneOf' : null;
  if (key) {
    const options = found[key].map((option) => resolve(option, root));
    const rest = options.filter((option) => !isNull(option));
    if (rest.length < options.length) {
      const { [key]: _, ...beside } = found;
      if (rest.length === 1) return withoutNull({ ...rest[0], ...beside }, root);
      return { ...found, [key]: rest };
    }
  }
  if (Array.isArray(found.type)) {
    const types = found.type.filter((type) => type !== 'null');
    return { ...found, type: types.length === 1 ? types[0] : types, ...(found.enum ? { enum: found.enum.filter((value) => value !== null) } : {}) };
  }
  return found;
}

// [{value, label, note}] when only certain values are allowed.
function choices(schema, root) {
  if (Array.isArray(schema.enum)) return schema.enum.map((value) => ({ value, label: label(value) }));
  const list = (schema.oneOf ?? schema.anyOf)?.map((option) => resolve(option, root));
  if (!list?.every((option) => 'const' in option || Array.isArray(option.enum))) return null;
  return list.flatMap((option) => ('const' in option ? [option.const] : option.enum)
    .map((value) => ({ value, label: option.title ?? label(value), note: option.description })));
}

// `code` in descriptions, as Rust's doc comments have it.
const marked = (words) => words.split('`').map((part, at) => (at % 2 === 1 ? h('code', null, part) : part));

const label = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

// What one of several object shapes is called: the constant that marks it, or its title.
function variantName(option, root, at) {
  for (const [name, property] of Object.entries(option.properties ?? {})) {
    const found = resolve(property, root);
    const fixed = 'const' in found ? found.const : found.enum?.length === 1 ? found.enum[0] : undefined;
    if (fixed !== undefined && option.required?.includes(name)) return { text: title(fixed), name, fixed };
  }
  if (Array.isArray(option.enum)) return { text: `${option.enum.slice(0, 3).map(label).join(', ')}${option.enum.length > 3 ? ', …' : ''}` };
  const kind = Array.isArray(option.type) ? option.type.join(' or ') : option.type;
  return { text: option.title ?? ('const' in option ? label(option.const) : kind ? title(kind) : `Form ${at + 1}`) };
}

function fits(option, value, root, at) {
  const mark = variantName(option, root, at);
  if (mark.name) return value?.[mark.name] === mark.fixed;
  if ('const' in option) return value === option.const;
  if (Array.isArray(option.enum)) return option.enum.includes(value);
  const type = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
  if (option.type === 'integer') return Number.isInteger(value);
  if (type === 'object' && option.properties) return Object.keys(value).every((name) => name in option.properties);
  return option.type === undefined || option.type === type;
}

function range(schema) {
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  const from = schema.exclusiveMinimum !== undefined ? `more than ${number(low)}` : `from ${number(low)}`;
  const to = schema.exclusiveMaximum !== undefined ? `less than ${number(high)}` : `up to ${number(high)}`;
  if (low !== undefined && high !== undefined) return `${from} ${schema.exclusiveMaximum !== undefined ? 'and ' : ''}${to}`;
  if (low !== undefined) return low === 0 && schema.type === 'integer' ? '' : schema.exclusiveMinimum !== undefined ? from : `at least ${number(low)}`;
  return high !== undefined ? (schema.exclusiveMaximum !== undefined ? to : `at most ${number(high)}`) : '';
}

export function form(schema, { value, base = '' } = {}) {
  const slots = new Map();
  const root = schema;

  // A labelled row with room for what is wrong.
  function row(name, path, control, { required, description, hint, group } = {}) {
    const error = h('p', { class: 'field-error', id: `f${ids += 1}`, role: 'alert' });
    const help = [description, hint].filter(Boolean).join(' · ');
    const note = help ? h('p', { class: 'field-help', id: `f${ids += 1}` }, marked(help)) : null;
    const target = control.input;
    if (target && !target.id) target.id = `f${ids += 1}`;
    if (target) attr(target, 'aria-describedby', [note?.id, error.id].filter(Boolean).join(' '));
    const star = required ? h('span', { class: 'required', title: 'required' }, ' required') : null;
    const caption = group ? h('legend', null, title(name), star) : control.check
      ? h('label', { class: 'check', for: target.id }, target, title(name)) : h('label', { for: target?.id }, title(name), star);
    const element = h(group ? 'fieldset' : 'div', { class: `field ${group ? 'group' : ''}`, 'data-path': path }, caption, group ? note : null, control.check ? null : control.element, group ? null : note, error);
    slots.set(path, {
      element,
      set(message) {
        text(error, message);
        element.classList.toggle('wrong', message !== '');
        if (target) attr(target, 'aria-invalid', message !== '' ? 'true' : null);
      },
      focus() { (target ?? element.querySelector('input,select,textarea,button'))?.focus(); },
    });
    return element;
  }

  function jsonField(path, start, rows = 4) {
    const area = h('textarea', { rows, class: 'code', spellcheck: 'false', placeholder: 'JSON' });
    area.value = start === undefined ? '' : JSON.stringify(start, null, 2);
    return { input: area, element: area, read() {
      if (area.value.trim() === '') return undefined;
      try { return JSON.parse(area.value); } catch (error) { throw new FieldError(path, `This is no JSON: ${error.message}`); }
    } };
  }

  function selectField(options, start, required) {
    const select = h('select', null, !(required && start !== undefined) && h('option', { value: '' }, required ? 'Choose…' : 'Not set'),
      options.map((option, at) => h('option', { value: String(at) }, option.label)));
    const at = options.findIndex((option) => JSON.stringify(option.value) === JSON.stringify(start));
    select.value = at >= 0 ? String(at) : '';
    if (select.selectedIndex < 0) select.selectedIndex = 0;
    const note = h('p', { class: 'field-help' });
    const tell = () => { text(note, select.value === '' ? '' : options[Number(select.value)].note ?? ''); note.hidden = note.textContent === ''; };
    select.addEventListener('change', tell);
    tell();
    return { input: select, element: h('div', null, select, note), read: () => (select.value === '' ? undefined : options[Number(select.value)].value) };
  }

  function numberField(found, path, start) {
    const input = h('input', { type: 'text', inputmode: found.type === 'integer' ? 'numeric' : 'decimal', autocomplete: 'off' });
    input.value = start ?? '';
    return { input, element: input, read() {
      const entered = input.value.trim();
      if (entered === '') return undefined;
      // What is no number goes to the server as it is, which says what it wants instead.
      return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(entered) ? Number(entered) : entered;
    } };
  }

  function boolField(start, required, hasDefault) {
    if (!required && !hasDefault && start === undefined) {
      return selectField([{ value: true, label: 'Yes' }, { value: false, label: 'No' }], start, false);
    }
    const input = h('input', { type: 'checkbox', checked: start === true });
    return { check: true, input, element: input, read: () => input.checked };
  }

  function textField(found, start) {
    const input = h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', placeholder: found.examples?.[0] ?? '' });
    input.value = start ?? '';
    return { input, element: input, read: () => (input.value === '' && start === undefined ? undefined : input.value) };
  }

  function objectField(found, path, start, depth, hidden = {}) {
    // What is required stands first, in the order in which the schema names it: its properties may come sorted by name.
    const first = (found.required ?? []).filter((name) => name in (found.properties ?? {}));
    const names = [...new Set([...first, ...Object.keys(found.properties ?? {})])].filter((name) => !(name in hidden));
    const properties = names.map((name) => [name, found.properties[name]]);
    const fields = properties.map(([name, property]) => {
      const required = (found.required ?? []).includes(name);
      return [name, labelled(name, property, `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`, start?.[name], required, depth + 1)];
    });
    return { element: h('div', { class: 'fields' }, fields.map(([, field]) => field.element)), read() {
      const object = { ...hidden };
      for (const [name, field] of fields) {
        const entered = field.read();
        if (entered !== undefined) object[name] = entered;
      }
      return object;
    } };
  }

  function arrayField(found, path, start, depth) {
    const items = [];
    const list = h('div', { class: 'items' });
    // A removed item must not leave its slots behind for the one that takes its place: all are made anew.
    const rebuild = (values) => {
      for (const key of [...slots.keys()]) if (key.startsWith(`${path}/`)) slots.delete(key);
      items.length = 0;
      show(list);
      values.forEach(addItem);
    };
    const values = () => items.map((item) => item.read()).map((item) => (item === undefined ? null : item));
    function addItem(item) {
      const at = items.length;
      const field = labelled(`entry ${at + 1}`, found.items ?? {}, `${path}/${at}`, item ?? undefined, true, depth + 1, true);
      const remove = h('button', { type: 'button', class: 'button small', 'aria-label': `Remove entry ${at + 1}`, onclick: () => {
        try { rebuild(values().filter((_, index) => index !== at)); } catch { /* an entry that cannot be read stays as it is */ }
      } }, 'Remove');
      items.push(field);
      list.append(h('div', { class: 'item' }, field.element, remove));
    }
    (Array.isArray(start) ? start : []).forEach(addItem);
    const more = h('button', { type: 'button', class: 'button small', onclick: () => { addItem(undefined); list.lastElementChild.querySelector('input,select,textarea')?.focus(); } }, 'Add entry');
    const untouched = start === undefined;
    return { element: h('div', null, list, more), read: () => (items.length === 0 && untouched ? undefined : values()) };
  }

  // Any names, each with a value of the same kind: {"age": "median", …}.
  function mapField(found, path, start, depth) {
    let entries = [];
    let made = 0;
    const list = h('div', { class: 'items' });
    function addEntry(key, value) {
      made += 1;
      const name = h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', 'aria-label': 'Name', placeholder: 'name' });
      name.value = key;
      // Its name is not known yet, so what is wrong with it is shown at the whole.
      const field = labelled('value', found.additionalProperties, `${path}/\n${made}`, value, true, depth + 1, true);
      const entry = { name, field };
      entries.push(entry);
      const row = h('div', { class: 'item named' }, name, field.element, h('button', { type: 'button', class: 'button small', 'aria-label': 'Remove entry', onclick: () => {
        entries = entries.filter((one) => one !== entry);
        row.remove();
      } }, 'Remove'));
      list.append(row);
      return name;
    }
    Object.entries(start ?? {}).forEach(([key, value]) => addEntry(key, value));
    const more = h('button', { type: 'button', class: 'button small', onclick: () => addEntry('', undefined).focus() }, 'Add entry');
    const untouched = start === undefined;
    return { element: h('div', null, list, more), read() {
      const named = entries.filter(({ name }) => name.value !== '');
      if (named.length === 0 && untouched) return undefined;
      // Names come from the user; `__proto__` is one like any other.
      return Object.fromEntries(named.map(({ name, field }) => [name.value, field.read() ?? null]));
    } };
  }

  function variantField(found, path, start, required, depth) {
    // Alternatives among alternatives are offered side by side.
    const flat = (option) => {
      const own = withoutNull(option, root);
      const inner = own.properties || choices(own, root) ? null : own.oneOf ?? own.anyOf;
      return inner ? inner.flatMap(flat) : [own];
    };
    const options = (found.oneOf ?? found.anyOf).flatMap(flat);
    const names = options.map((option, at) => variantName(option, root, at));
    const select = h('select', { 'aria-label': 'Kind' }, !required && h('option', { value: '' }, 'Not set'), names.map((name, at) => h('option', { value: String(at) }, name.text)));
    const note = h('p', { class: 'field-help' });
    const box = h('div', { class: 'variant' });
    let field = null;
    const choose = (value) => {
      for (const key of [...slots.keys()]) if (key.startsWith(`${path}/`)) slots.delete(key);
      field = null;
      const at = select.value === '' ? -1 : Number(select.value);
      const option = options[at];
      text(note, option?.description ?? '');
      note.hidden = note.textContent === '';
      if (option) {
        const { name, fixed } = names[at];
        if ('const' in option) field = { element: h('span'), read: () => option.const };
        else if (option.type === 'object' && option.properties) field = objectField(option, path, value, depth, name ? { [name]: fixed } : {});
        else field = control(option, path, value, true, depth + 1);
      }
      show(box, field?.element);
    };
    const at = start === undefined ? (required ? 0 : -1) : options.findIndex((option, index) => fits(option, start, root, index));
    select.value = at >= 0 ? String(at) : required ? '0' : '';
    select.addEventListener('change', () => choose(undefined));
    choose(start);
    return { input: select, element: h('div', null, select, note, box), read: () => field?.read() };
  }

  function control(schema, path, start, required, depth) {
    const found = withoutNull(schema, root);
    const given = start === undefined || start === null ? found.default ?? undefined : start;
    if ('const' in found) return { element: h('code', null, label(found.const)), read: () => found.const };
    const list = choices(found, root);
    if (list) return selectField(list, given, required);
    if (depth > DEPTH) return jsonField(path, given);
    if (found.oneOf || found.anyOf) return { ...variantField(found, path, given, required, depth), group: true };
    switch (found.type) {
      case 'string': return textField(found, given);
      case 'integer':
      case 'number': return { ...numberField(found, path, given), hint: range(found) };
      case 'boolean': return boolField(given, required, found.default !== undefined && found.default !== null);
      case 'array':
        if (found.items && typeof found.items === 'object') return { ...arrayField(found, path, given, depth), group: true };
        return jsonField(path, given);
      case 'object':
        if (found.properties && Object.keys(found.properties).length > 0) return { ...optionalObject(found, path, given, required, depth), group: true };
        if (found.additionalProperties && typeof found.additionalProperties === 'object') return { ...mapField(found, path, given, depth), group: true };
        return jsonField(path, given);
      default: return jsonField(path, given);
    }
  }

  function optionalObject(found, path, start, required, depth) {
    if (required) return objectField(found, path, start, depth);
    const on = h('input', { type: 'checkbox', id: `f${ids += 1}`, checked: start !== undefined });
    let field = null;
    const box = h('div');
    const toggle = () => {
      for (const key of [...slots.keys()]) if (key.startsWith(`${path}/`)) slots.delete(key);
      field = on.checked ? objectField(found, path, start, depth) : null;
      show(box, field?.element);
    };
    on.addEventListener('change', toggle);
    toggle();
    return { element: h('div', null, h('label', { class: 'check', for: on.id }, on, 'Set'), box), read: () => field?.read() };
  }

  function labelled(name, schema, path, start, required, depth, silent = false) {
    const found = withoutNull(schema, root);
    const made = control(schema, path, start, required, depth);
    const element = row(name, path, made, { required: required && !silent && !made.check && found.default === undefined, description: found.description, hint: made.hint, group: made.group });
    return { element, read: made.read };
  }

  const top = withoutNull(schema, root);
  const field = top.type === 'object' && top.properties && !top.oneOf && !top.anyOf
    ? objectField(top, base, value, 0) : control(top, base, value, true, 0);

  return {
    element: field.element,
    // Throws a FieldError.
    read: () => field.read() ?? {},
    clear: () => { for (const slot of slots.values()) slot.set(''); },
    // Shows violations at their fields, or at the nearest one around; gives back those that belong to none.
    mark(violations) {
      const rest = [];
      let first = null;
      for (const { path, message } of violations) {
        const missing = /^"([^"]+)" is a required property/.exec(message);
        let at = missing ? `${path}/${missing[1]}` : path;
        while (!slots.has(at) && at.includes('/') && at.length > base.length) at = at.slice(0, at.lastIndexOf('/'));
        const slot = slots.get(at);
        if (!slot) { rest.push({ path, message }); continue; }
        slot.set(missing && at.endsWith(`/${missing[1]}`) ? 'This is required' : message);
        first ??= slot;
      }
      return { rest, first };
    },
  };
}

export { FieldError };

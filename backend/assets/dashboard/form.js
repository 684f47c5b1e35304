// A form from a JSON Schema (2020-12, as worker types publish it). What the form cannot express is asked for as JSON.
//
// A field is {element, read()}: `read` gives the value, or undefined when nothing was entered. What is wrong with a value is
// the server's to say; refused here is only what could not be sent as it stands: text that is no JSON, names of no use.

import { attr, h, show, text } from './dom.js';
import { Exact, asNumber, inside, kindOf, lost, own, readJson, same, writeJson } from './exact.js';
import { number, title } from './format.js';

const DEPTH = 8;
let ids = 0;

// What keeps a form from being read: [{path, message}], with the `slot` to show it at when it is known.
export class Refused extends Error {
  constructor(violations) {
    super(violations.map(({ message }) => message).join('; '));
    this.violations = violations;
  }
}

// What a description says that another one, closer to the use, hides.
const DETAIL = Symbol('detail');
const beneath = (target, beside) =>
  ({ ...target, ...beside, ...(beside.description && target?.description ? { [DETAIL]: target[DETAIL] ?? target.description } : {}) });

// The schema behind references and single-member allOf, with what stands beside the reference.
function resolve(schema, root) {
  let found = schema === true || schema === undefined ? {} : schema;
  for (let step = 0; step < 20; step += 1) {
    if (typeof found.$ref === 'string' && found.$ref.startsWith('#/')) {
      const { $ref: target, ...beside } = found;
      const parts = target.slice(2).split('/').map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
      found = beneath(parts.reduce((at, part) => own(at, part), root), beside);
    } else if (Array.isArray(found.allOf) && found.allOf.length === 1) {
      const { allOf: [only], ...beside } = found;
      found = beneath(only, beside);
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
      if (rest.length === 1) return withoutNull(beneath(rest[0], beside), root);
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

const label = (value) => (typeof value === 'string' ? value : writeJson(value));

// What one of several object shapes is called: the constant that marks it, or its title.
function variantName(option, root, at) {
  for (const [name, property] of Object.entries(option.properties ?? {})) {
    const found = resolve(property, root);
    const fixed = 'const' in found ? found.const : found.enum?.length === 1 ? found.enum[0] : undefined;
    if (fixed !== undefined && option.required?.includes(name)) return { text: title(fixed), name, fixed };
  }
  if (Array.isArray(option.enum)) return { text: `${option.enum.slice(0, 3).map(label).join(', ')}${option.enum.length > 3 ? ', …' : ''}` };
  const kind = Array.isArray(option.type) ? option.type.join(' or ') : option.type;
  // An object without a mark is known by what it has.
  const has = option.required?.length > 0 ? option.required : Object.keys(option.properties ?? {});
  if (!option.title && kind === 'object' && has.length > 0) return { text: `${title(has.slice(0, 3).join(', '))}${has.length > 3 ? ', …' : ''}` };
  return { text: option.title ?? ('const' in option ? label(option.const) : kind ? title(kind) : `Form ${at + 1}`) };
}

function fits(option, value, root, at) {
  const mark = variantName(option, root, at);
  if (mark.name) return same(own(value, mark.name), mark.fixed);
  if ('const' in option) return same(value, option.const);
  if (Array.isArray(option.enum)) return option.enum.some((one) => same(value, one));
  const type = kindOf(value);
  if (option.type === 'integer') return type === 'number' && Number.isInteger(Number(value));
  if (type === 'object' && option.properties) return Object.keys(value).every((name) => name in option.properties);
  return option.type === undefined || option.type === type;
}

// Limits such as 18,446,744,073,709,551,615 to the last digit.
const amount = (value) => (value instanceof Exact ? String(value).replace(/\B(?=(\d{3})+$)/g, ',') : number(value));

function range(schema) {
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  const from = schema.exclusiveMinimum !== undefined ? `more than ${amount(low)}` : `from ${amount(low)}`;
  const to = schema.exclusiveMaximum !== undefined ? `less than ${amount(high)}` : `up to ${amount(high)}`;
  if (low !== undefined && high !== undefined) return `${from} ${schema.exclusiveMaximum !== undefined ? 'and ' : ''}${to}`;
  if (low !== undefined) return low === 0 && schema.type === 'integer' ? '' : schema.exclusiveMinimum !== undefined ? from : `at least ${amount(low)}`;
  return high !== undefined ? (schema.exclusiveMaximum !== undefined ? to : `at most ${amount(high)}`) : '';
}

// In which order an object's fields stand: what is required first, as the schema names it, then the rest as the schema has it.
// Properties that come sorted by name have lost their order; a start then stands before its end all the same.
function ordered(found) {
  const all = Object.keys(found.properties ?? {});
  const first = (found.required ?? []).filter((name) => all.includes(name));
  const rest = all.filter((name) => !first.includes(name));
  if (all.every((name, at) => at === 0 || all[at - 1] <= name)) {
    for (const end of [...rest]) {
      const begin = rest.indexOf(end.replace(/(?<![a-z])end(?![a-z])/i, 'start'));
      const at = rest.indexOf(end);
      if (begin > at) rest.splice(at, 0, ...rest.splice(begin, 1));
    }
  }
  return [...new Set([...first, ...rest])];
}

// What a text that does not match its pattern should look like, as far as it does not stand at the field anyway.
function advice(found) {
  const examples = (found.examples ?? []).slice(0, 2).map(label).join(' or ');
  return found.pattern ? [found[DETAIL], examples && `for example ${examples}`].filter(Boolean).join('; ').replaceAll('`', '') : '';
}

export function form(schema, { value, base = '' } = {}) {
  // What is wrong is shown at the slot of its path. Entries of lists and maps change their place and name: they have a key
  // instead, which `entries` of the path around them finds.
  const slots = new Map();
  const entries = new Map();
  const root = schema;
  let problems = null;

  const refuse = (path, message) => problems?.push({ path: '', message, slot: slots.get(path) });

  // Fields are made anew where another shape is chosen.
  function forget(path, itself = false) {
    for (const known of [slots, entries]) {
      for (const key of [...known.keys()]) if (key.startsWith(`${path}/`) || (itself && key === path)) known.delete(key);
    }
    entries.delete(path);
  }

  function addSlot(path, element, error, target, more = {}) {
    slots.set(path, {
      element,
      set(message) {
        text(error, message);
        element.classList.toggle('wrong', message !== '');
        if (target) attr(target, 'aria-invalid', message !== '' ? 'true' : null);
      },
      focus() { (target ?? element.querySelector('input,select,textarea,button'))?.focus(); },
      empty: () => false,
      advice: '',
      ...more,
    });
  }

  // A labelled row with room for what is wrong.
  function row(name, path, control, { required, description, hint, group, advice: words } = {}) {
    const error = h('p', { class: 'field-error', id: `f${ids += 1}`, role: 'alert' });
    const help = [description, hint].filter(Boolean).join(' · ');
    const note = help ? h('p', { class: 'field-help', id: `f${ids += 1}` }, marked(help)) : null;
    const target = control.input;
    if (target && !target.id) target.id = `f${ids += 1}`;
    if (target) attr(target, 'aria-describedby', [note?.id, error.id].filter(Boolean).join(' '));
    const star = required ? h('span', { class: 'required', title: 'required' }, ' required') : null;
    const called = h('span', null, title(name));
    const caption = group ? h('legend', null, called, star) : control.check
      ? h('label', { class: 'check', for: target.id }, target, called) : h('label', { for: target?.id }, called, star);
    const element = h(group ? 'fieldset' : 'div', { class: `field ${group ? 'group' : ''}`, 'data-path': path }, caption, group ? note : null, control.check ? null : control.element, group ? null : note, error);
    addSlot(path, element, error, target, { empty: () => control.read() === undefined, advice: words });
    return { element, rename: (next) => text(called, title(next)) };
  }

  function jsonField(path, start, rows = 4) {
    const area = h('textarea', { rows, class: 'code', spellcheck: 'false', placeholder: 'JSON' });
    area.value = start === undefined ? '' : writeJson(start, 2);
    return { input: area, element: area, read() {
      if (area.value.trim() === '') return undefined;
      try { return readJson(area.value); } catch (error) { refuse(path, `This is no JSON: ${error.message}`); }
      return area.value;
    } };
  }

  function selectField(options, start, required) {
    const at = start === undefined ? -1 : options.findIndex((option) => same(option.value, start));
    const select = h('select', null, !(required && at >= 0) && h('option', { value: '' }, required ? 'Choose…' : 'Not set'),
      options.map((option, index) => h('option', { value: String(index) }, option.label)));
    select.value = at >= 0 ? String(at) : '';
    const note = h('p', { class: 'field-help' });
    const tell = () => { text(note, select.value === '' ? '' : options[Number(select.value)].note ?? ''); note.hidden = note.textContent === ''; };
    select.addEventListener('change', tell);
    tell();
    return { input: select, element: h('div', null, select, note), read: () => (select.value === '' ? undefined : options[Number(select.value)].value) };
  }

  function numberField(found, path, start) {
    const input = h('input', { type: 'text', inputmode: found.type === 'integer' ? 'numeric' : 'decimal', autocomplete: 'off' });
    input.value = String(start ?? '');
    return { input, element: input, read() {
      const entered = input.value.trim();
      if (entered === '') return undefined;
      const found = /^([+-]?)(?:(\d+)\.?(\d*)|\.(\d+))(e[+-]?\d+)?$/i.exec(entered);
      // What is no number goes to the server as it is, which says what it wants instead.
      if (!found) return entered;
      const [, sign, whole = '', part, only, power = ''] = found;
      const digits = part || only;
      return asNumber(`${sign === '-' ? '-' : ''}${whole.replace(/^0+(?=\d)/, '') || '0'}${digits ? `.${digits}` : ''}${power}`);
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
    return { input, element: input, read() {
      // Emptied is left out, but not where the server would then put something else.
      const absent = input.value === '' && start !== '' && (found.default ?? undefined) === undefined;
      return absent ? undefined : input.value;
    } };
  }

  function objectField(found, path, start, depth, hidden = {}) {
    const fields = ordered(found).filter((name) => !Object.hasOwn(hidden, name)).map((name) => {
      const required = (found.required ?? []).includes(name);
      return [name, labelled(name, found.properties[name], inside(path, name), own(start, name), required, depth + 1)];
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
    let items = [];
    let made = 0;
    const list = h('div', { class: 'items' });
    entries.set(path, (at) => items[Number(at)]?.key);
    const renumber = () => items.forEach(({ field, remove }, at) => {
      field.rename(`entry ${at + 1}`);
      attr(remove, 'aria-label', `Remove entry ${at + 1}`);
    });
    function addItem(value) {
      made += 1;
      const key = `${path}/\n${made}`;
      const field = labelled('entry', found.items ?? {}, key, value ?? undefined, true, depth + 1, true);
      const remove = h('button', { type: 'button', class: 'button small', onclick: () => {
        items = items.filter((one) => one !== item);
        item.element.remove();
        forget(key, true);
        renumber();
        more.focus();
      } }, 'Remove');
      const item = { key, field, remove, element: h('div', { class: 'item' }, field.element, remove) };
      items.push(item);
      list.append(item.element);
      renumber();
    }
    (Array.isArray(start) ? start : []).forEach(addItem);
    const more = h('button', { type: 'button', class: 'button small', onclick: () => { addItem(undefined); list.lastElementChild.querySelector('input,select,textarea')?.focus(); } }, 'Add entry');
    const untouched = start === undefined;
    // An entry that nothing was entered in has its place all the same: the server refuses it, and it is marked as required.
    return { element: h('div', null, list, more), read: () => (items.length === 0 && untouched ? undefined : items.map(({ field }) => field.read() ?? null)) };
  }

  // Any names, each with a value of the same kind: {"age": "median", …}.
  function mapField(found, path, start, depth) {
    let items = [];
    let made = 0;
    const list = h('div', { class: 'items' });
    entries.set(path, (called) => items.find(({ name }) => name.value === called)?.key);
    function addItem(called, value) {
      made += 1;
      const key = `${path}/\n${made}`;
      // Beside the entry's own path: what is chosen below it is made anew.
      const nameKey = `${path}/\nname ${made}`;
      const field = labelled('value', found.additionalProperties, key, value ?? undefined, true, depth + 1, true);
      const error = h('p', { class: 'field-error', id: `f${ids += 1}`, role: 'alert' });
      const name = h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', 'aria-label': 'Name', 'aria-describedby': error.id, placeholder: 'name' });
      name.value = called;
      const cell = h('div', { class: 'field' }, name, error);
      addSlot(nameKey, cell, error, name);
      const item = { key, nameKey, name, field };
      items.push(item);
      const element = h('div', { class: 'item named' }, cell, field.element, h('button', { type: 'button', class: 'button small', 'aria-label': 'Remove entry', onclick: () => {
        items = items.filter((one) => one !== item);
        element.remove();
        forget(key, true);
        forget(nameKey, true);
        more.focus();
      } }, 'Remove'));
      list.append(element);
      return name;
    }
    if (kindOf(start) === 'object') Object.entries(start).forEach(([called, value]) => addItem(called, value));
    const more = h('button', { type: 'button', class: 'button small', onclick: () => addItem('', undefined).focus() }, 'Add entry');
    const untouched = start === undefined;
    return { element: h('div', null, list, more), read() {
      const values = new Map();
      for (const { key, nameKey, name, field } of items) {
        const entered = field.read();
        if (name.value === '') {
          if (entered !== undefined) refuse(nameKey, 'This needs a name');
          continue;
        }
        if (items.some((other) => other.key !== key && other.name.value === name.value)) refuse(nameKey, 'Another entry has the same name');
        values.set(name.value, entered ?? null);
      }
      return values.size === 0 && untouched ? undefined : Object.fromEntries(values);
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
    const at = start === undefined ? -1 : options.findIndex((option, index) => fits(option, start, root, index));
    // Nothing is chosen for anybody: the first alternative may well be "drop the row".
    const select = h('select', { 'aria-label': 'Kind' }, !(required && at >= 0) && h('option', { value: '' }, required ? 'Choose…' : 'Not set'), names.map((name, index) => h('option', { value: String(index) }, name.text)));
    const note = h('p', { class: 'field-help' });
    const box = h('div', { class: 'variant' });
    let field = null;
    const choose = (value) => {
      forget(path);
      field = null;
      const chosen = select.value === '' ? -1 : Number(select.value);
      const option = options[chosen];
      text(note, option?.description ?? '');
      note.hidden = note.textContent === '';
      if (option) {
        const { name, fixed } = names[chosen];
        if ('const' in option) field = { element: h('span'), read: () => option.const };
        else if (option.type === 'object' && option.properties) field = objectField(option, path, value, depth, name ? { [name]: fixed } : {});
        else field = control(option, path, value, true, depth + 1);
      }
      show(box, field?.check ? h('label', { class: 'check' }, field.element, 'Yes') : field?.element);
    };
    select.value = at >= 0 ? String(at) : '';
    select.addEventListener('change', () => choose(undefined));
    choose(at >= 0 ? start : undefined);
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
      forget(path);
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
    const shown = row(name, path, made, {
      required: required && !silent && !made.check && found.default === undefined,
      description: found.description, hint: made.hint, group: made.group, advice: advice(found),
    });
    return { ...shown, read: made.read };
  }

  const top = withoutNull(schema, root);
  const field = top.type === 'object' && top.properties && !top.oneOf && !top.anyOf
    ? objectField(top, base, value, 0) : control(top, base, value, true, 0);

  // The slot of a path or of the nearest one around it, and whether it is the path's own.
  function locate(path) {
    let [at, slot, exact] = [base, slots.get(base), path === base];
    for (const part of path.slice(base.length).split('/').slice(1)) {
      at = entries.get(at)?.(part.replaceAll('~1', '/').replaceAll('~0', '~')) ?? `${at}/${part}`;
      exact = slots.has(at);
      slot = slots.get(at) ?? slot;
    }
    return { slot, exact };
  }

  return {
    element: field.element,
    // Throws what was refused.
    read() {
      problems = [];
      try {
        const value = field.read() ?? {};
        if (problems.length > 0) throw new Refused(problems);
        return value;
      } finally {
        problems = null;
      }
    },
    // What can be read, whatever is wrong with the rest.
    peek: () => field.read() ?? {},
    clear: () => { for (const slot of slots.values()) slot.set(''); },
    // Shows violations at their fields, or at the nearest one around; gives back those that belong to none.
    mark(violations) {
      const rest = [];
      const wrong = [];
      for (const { path, message } of violations) {
        const missing = /^"([^"]+)" is a required property/.exec(message);
        let found = locate(missing ? inside(path, missing[1]) : path);
        if (missing && !found.exact) found = locate(path);
        const { slot, exact } = found;
        if (!slot) { rest.push({ path, message }); continue; }
        const words = exact && slot.empty() ? 'This is required'
          : slot.advice && exact && / does not match "/.test(message) ? `${slot.advice} (${message})` : message;
        slot.set(words);
        wrong.push(slot);
      }
      return { rest, wrong };
    },
  };
}

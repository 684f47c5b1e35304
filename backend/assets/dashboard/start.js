// Starts an operation: a form from the worker type's schema, or its body as JSON.

import { exchange } from './api.js';
import { h, show, text, toast } from './dom.js';
import { lost, readJson, writeJson } from './exact.js';
import { Refused, form } from './form.js';
import { count, title } from './format.js';
import { atMostEvery } from './live.js';

// How often the worker types are asked for while there are none, or no worker of the one chosen.
const AGAIN = 3000;
const NAMED = 8;

const EXECUTION = {
  type: 'object',
  properties: {
    requirements: {
      type: 'object', default: {}, description: 'What a worker must have to run it',
      properties: {
        gpu: { type: 'boolean', default: false, description: 'Needs a GPU' },
        cores: { type: 'integer', minimum: 1, maximum: 65536, description: 'Processor cores' },
        memory_gb: { type: 'integer', minimum: 1, maximum: 1048576, description: 'Memory in GiB' },
      },
    },
    timeout_seconds: { type: 'number', description: 'Seconds one attempt may run; no limit when empty' },
    max_attempts: { type: 'integer', minimum: 1, maximum: 1000, description: 'Attempts in all, failures included' },
    retry_delay: { type: 'number', minimum: 0, maximum: 3600, description: 'Seconds before a failed attempt is tried again; doubles each time' },
  },
};

const OWN = { type: 'object', properties: { task_id: { type: 'string', description: 'An id of your own: starting the same one twice starts it once. Made up when empty.' } } };

export default function start({ root, signal, argument, listen }) {
  let types = [];
  let current = null;
  let timer = 0;
  const picker = h('select', { id: 'start-type', disabled: true, onchange: () => {
    // Only the address changes, not the view: who goes through the types with the arrow keys stays where they are.
    history.replaceState(null, '', `#/start/${encodeURIComponent(picker.value)}`);
    open(types.find((one) => one.worker_type === picker.value));
  } });
  const box = h('div');
  show(root, h('div', { class: 'page-head' }, h('h1', null, 'Start an operation')),
    h('section', { class: 'card start' }, h('div', { class: 'field' }, h('label', { for: 'start-type' }, 'What to run'), picker), box));

  const load = atMostEvery(1000, async () => {
    clearTimeout(timer);
    if (signal.aborted) return;
    try {
      if (!document.hidden) heard((await exchange('GET', '/api/v1/worker-types', { signal, read: readJson })).answer.data.worker_types);
    } catch (error) {
      if (!signal.aborted && !current) show(box, h('p', { class: 'problem', role: 'alert' }, error.message, '. Trying again…'));
    }
    if (!signal.aborted && !(current?.workers() > 0)) timer = setTimeout(load, AGAIN);
  });

  // What was entered stays, whatever comes.
  function heard(found) {
    types = found;
    if (current) {
      const mine = types.find((one) => one.worker_type === picker.value);
      current.update(mine);
      if (!mine) return;
    }
    if (types.length === 0) {
      show(box, h('p', { class: 'empty' }, 'No worker type is known yet. Start a worker, and its form appears here.'));
      return;
    }
    const chosen = current ? picker.value : undefined;
    if (types.length !== picker.options.length || types.some((type, at) => type.worker_type !== picker.options[at].value)) {
      show(picker, types.map((type) => h('option', { value: type.worker_type }, title(type.worker_type))));
      picker.disabled = false;
    }
    const type = types.find((one) => one.worker_type === (chosen ?? argument)) ?? types.find((one) => one.workers > 0) ?? types[0];
    picker.value = type.worker_type;
    if (type.worker_type !== chosen) open(type);
  }

  function open(type) {
    current = startForm(box, type, signal);
    if (type.workers === 0) load();
  }

  // A form needs no events, only to know whether the backend is there; when it is back, so may be the types.
  listen('/api/v1/events?operation_type=none&worker_type=none', { open: () => load(true), reset: () => load() });
  load(true);
  return () => { clearTimeout(timer); load.stop(); };
}

const list = (paths) => `${paths.slice(0, NAMED).map((path) => path || 'the top').join(', ')}${paths.length > NAMED ? ` and ${count(paths.length - NAMED)} more` : ''}`;

function startForm(box, type, signal) {
  let own = form(OWN);
  let execution = form(EXECUTION, { base: '/execution' });
  let parameters = form(type.request_schema);
  let asJson = false;
  const area = h('textarea', { class: 'code', rows: 16, spellcheck: 'false', 'aria-label': 'The request as JSON' });
  const fields = h('div', { class: 'form-body' });
  const error = h('div', { class: 'problem', hidden: true, role: 'alert' });
  const submit = h('button', { type: 'submit', class: 'button primary' }, 'Start');
  const modes = ['Form', 'JSON'].map((name, at) => h('button', { type: 'button', class: 'segment', 'aria-pressed': String(at === 0), onclick: () => switchTo(at === 1) }, name));
  const nobody = h('p', { class: 'note' }, 'No worker of this type is here now; the operation will wait until there is one.');
  const workers = h('span', { class: 'muted' });
  const element = h('form', { class: 'start-form', novalidate: true, onsubmit: send },
    h('div', { class: 'form-head' }, h('p', { class: 'muted' }, type.description), h('div', { class: 'segments', role: 'group', 'aria-label': 'How to enter it' }, modes)),
    nobody, fields, error, h('div', { class: 'form-end' }, submit, workers));
  update(type);
  show(box, element);
  lay();
  return { update, workers: () => type.workers };

  function update(next) {
    type = { ...type, workers: next?.workers ?? 0 };
    nobody.hidden = type.workers > 0;
    text(workers, type.workers > 0 ? `${count(type.workers)} ${type.workers === 1 ? 'worker' : 'workers'} of this type` : '');
  }

  function lay() {
    show(fields, asJson ? area : [parameters.element,
      h('details', { class: 'branch options' }, h('summary', null, 'How to run it'), own.element, execution.element)]);
  }

  // The object that the text is.
  function typed() {
    let value;
    const twice = [];
    try { value = readJson(area.value, twice); } catch (problem) { throw new Refused([{ path: '', message: `This is no JSON: ${problem.message}` }]); }
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      const what = value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value === 'string' ? 'a text' : typeof value === 'boolean' ? String(value) : 'a number';
      throw new Refused([{ path: '', message: `A start is an object, { … }; this is ${what}` }]);
    }
    return { value, twice };
  }

  // The object that the form makes.
  function entered() {
    const problems = [];
    const [mine, how, asked] = [own, execution, parameters].map((part) => {
      try { return part.read(); } catch (problem) {
        if (!(problem instanceof Refused)) throw problem;
        problems.push(...problem.violations);
        return {};
      }
    });
    if (problems.length > 0) throw new Refused(problems);
    // Nothing asked for is left out, so that the operation shows only what was.
    const requirements = Object.fromEntries(Object.entries(how.requirements ?? {}).filter(([, value]) => value !== false));
    if (Object.keys(requirements).length > 0) how.requirements = requirements;
    else delete how.requirements;
    return { ...mine, ...asked, ...(Object.keys(how).length > 0 ? { execution: how } : {}) };
  }

  // Text goes as it was typed.
  function body() {
    if (!asJson) return writeJson(entered());
    typed();
    return area.value;
  }

  // Into the form goes only what comes out of it the same.
  function toForm() {
    const { value, twice } = typed();
    const { task_id, execution: how, ...rest } = value;
    const next = { own: form(OWN, { value: { task_id } }), execution: form(EXECUTION, { value: how ?? undefined, base: '/execution' }), parameters: form(type.request_schema, { value: rest }) };
    const kept = { ...next.own.peek(), ...next.parameters.peek(), execution: next.execution.peek() };
    const paths = lost(value, kept);
    if (twice.length > 0) throw new Refused([{ path: '', message: `Named twice: ${list(twice)}` }]);
    if (paths.length > 0) throw new Refused([{ path: '', message: `The form has no place for what stands at ${list(paths)}. It can be started as JSON, or changed here` }]);
    ({ own, execution, parameters } = next);
  }

  function switchTo(json) {
    if (json === asJson) return;
    for (const part of [own, execution, parameters]) part.clear();
    try {
      if (json) area.value = writeJson(entered(), 2);
      else toForm();
      asJson = json;
      error.hidden = true;
      modes.forEach((mode, at) => mode.setAttribute('aria-pressed', String((at === 1) === json)));
      lay();
    } catch (problem) {
      complain(problem);
    }
  }

  function complain(problem) {
    const violations = problem.violations ?? [];
    let rest = violations;
    const wrong = [];
    if (!asJson) {
      for (const { slot, message } of violations.filter((violation) => violation.slot)) {
        slot.set(message);
        wrong.push(slot);
      }
      rest = violations.filter((violation) => !violation.slot);
      for (const part of [own, execution, parameters]) {
        const mine = rest.filter(({ path }) => (part === execution ? /^\/execution(\/|$)/.test(path) : part === own ? path === '/task_id' : true));
        const others = rest.filter((violation) => !mine.includes(violation));
        const marked = part.mark(mine);
        rest = [...others, ...marked.rest];
        wrong.push(...marked.wrong);
      }
    }
    const texts = violations.length > 0 ? rest.map(({ path, message }) => (path ? `${path}: ${message}` : message)) : [problem.message];
    error.hidden = texts.length === 0;
    show(error, texts.map((line) => h('p', null, line)));
    const first = wrong.reduce((before, slot) => (before && before.element.compareDocumentPosition(slot.element) & Node.DOCUMENT_POSITION_FOLLOWING ? before : slot), null);
    if (first) {
      for (let at = first.element.closest('details'); at; at = at.parentElement.closest('details')) at.open = true;
      first.focus();
    } else if (asJson && violations.length > 0) area.focus();
  }

  async function send(event) {
    event.preventDefault();
    for (const part of [own, execution, parameters]) part.clear();
    error.hidden = true;
    submit.disabled = true;
    text(submit, 'Starting…');
    try {
      const { status, answer } = await exchange('POST', `/api/v1/${encodeURIComponent(type.domain)}/start`, { body: body(), read: readJson });
      if (status === 200) toast(`${answer.operation_id} exists already; nothing was started`, 'warn');
      else toast(answer.warning ?? `Started ${answer.operation_id}`, answer.warning ? 'warn' : 'info');
      // Who has left meanwhile is not called back.
      if (!signal.aborted && element.isConnected) location.hash = `#/operations/${encodeURIComponent(answer.operation_id)}`;
    } catch (problem) {
      complain(problem);
    } finally {
      submit.disabled = false;
      text(submit, 'Start');
    }
  }
}

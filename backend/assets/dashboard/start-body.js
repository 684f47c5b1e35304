// The body of a start request: its parts, and what the form makes of it. No elements here.

import { changedPaths, jsonType, readJson } from './exact.js';
import { count } from './format.js';
import { InvalidForm } from './schema-errors.js';
import { resolveSchema, withoutNull } from './schema.js';

const START_ROUTE = /^\/api\/v1\/[^/]+\/start$/;
const MAX_PATHS = 8;

// The options that say how an attempt runs. All others say when, in which order, and how to find it.
const HOW = ['requirements', 'timeout_seconds', 'stall_timeout_seconds', 'max_attempts', 'retry_delay'];

/** @typedef {'id' | 'how' | 'when' | 'parameters'} Part of a start body, with a form of its own */

/**
 * The schemas of the id and of the execution options, which all worker types share, from
 * /openapi.json.
 * @param {OpenApi} openApi
 * @returns {{ id: Schema, how: Schema, when: Schema }}
 * @throws {Error} when the document has no route that starts operations
 */
export function sharedSchemas(openApi) {
  for (const [path, methods] of Object.entries(openApi.paths)) {
    const content = methods.post?.requestBody?.content?.['application/json'];
    if (!START_ROUTE.test(path) || !content) continue;

    const { task_id: id, execution } = resolveSchema(content.schema, openApi).properties ?? {};
    if (!id || !execution) continue;
    const options = withDefaults(withoutNull(execution, openApi), openApi);
    return {
      id: { type: 'object', properties: { task_id: id } },
      how: onlyWith(options, (name) => HOW.includes(name)),
      when: onlyWith(options, (name) => !HOW.includes(name)),
    };
  }
  throw new Error('/openapi.json has no route that starts operations');
}

/**
 * @param {Schema} schema
 * @param {(name: string) => boolean} isIn
 * @returns {Schema}
 */
function onlyWith(schema, isIn) {
  const properties = Object.entries(schema.properties ?? {}).filter(([name]) => isIn(name));
  return { ...schema, properties: Object.fromEntries(properties) };
}

/**
 * Says what leaving out a requirement means, so that the form shows them at once, and a GPU as a
 * checkbox.
 * @param {Schema} execution
 * @param {OpenApi} openApi
 * @returns {Schema}
 */
function withDefaults(execution, openApi) {
  const { requirements, ...others } = execution.properties ?? {};
  if (!requirements) return execution;

  const found = withoutNull(requirements, openApi);
  const properties = { ...found.properties };
  for (const [name, property] of Object.entries(properties)) {
    if (property.type === 'boolean') properties[name] = { default: false, ...property };
  }
  return {
    ...execution,
    properties: { requirements: { default: {}, ...found, properties }, ...others },
  };
}

/**
 * One body from its parts. Requirements without a value are left out, so that the operation shows
 * only those that were set.
 * @param {Record<Part, Record<string, any>>} parts
 */
export function joinParts({ id, how: howToRun, when, parameters }) {
  /** @type {Record<string, any>} */
  const execution = { ...howToRun, ...when };
  const { requirements, ...options } = execution;
  const asked = Object.entries(requirements ?? {}).filter(([, value]) => value !== false);
  const how = asked.length > 0
    ? { requirements: Object.fromEntries(asked), ...options }
    : options;

  const body = { ...id, ...parameters };
  return Object.keys(how).length > 0 ? { ...body, execution: how } : body;
}

/**
 * The values in a body: the id, the execution options, and the parameters.
 * @param {Record<string, any>} body
 */
export function splitBody({ task_id: taskId, execution, ...parameters }) {
  return { id: { task_id: taskId }, execution: execution ?? undefined, parameters };
}

/**
 * The body that has these values; the other way round than `splitBody`.
 * @param {{ id?: any, execution?: any, parameters?: any }} values
 * @returns {Record<string, unknown>}
 */
export function bodyOf({ id, execution, parameters }) {
  const body = { ...parameters };
  if (id?.task_id !== undefined) body.task_id = id.task_id;
  if (execution !== undefined) body.execution = execution;
  return body;
}

/**
 * The part that a violation belongs to.
 * @param {string} path
 * @returns {Part}
 */
export function partOf(path) {
  if (path === '/task_id') return 'id';
  const option = path.match(/^\/execution(?:\/([^/]*))?(?:\/|$)/);
  if (!option) return 'parameters';
  return option[1] === undefined || HOW.includes(option[1]) ? 'how' : 'when';
}

/**
 * The object that a text is, and the paths of members that it names twice.
 * @param {string} text
 * @throws {InvalidForm} when it is not JSON or not an object
 */
export function parseBody(text) {
  /** @type {string[]} */
  const duplicates = [];
  const value = parse(text, duplicates);
  if (jsonType(value) !== 'object') {
    throw InvalidForm.of(`A start is an object, { … }; this is ${describe(value)}`);
  }
  return { value, duplicates };
}

/**
 * @param {string} text
 * @param {string[]} duplicates
 */
function parse(text, duplicates) {
  try {
    return readJson(text, duplicates);
  } catch (error) {
    throw InvalidForm.of(`This is not JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {unknown} value */
function describe(value) {
  const type = jsonType(value);
  if (type === 'array') return 'a list';
  if (type === 'string') return 'a text';
  return type === 'number' ? 'a number' : String(value);
}

/**
 * Refuses a body that would not come out of the form as it went in.
 * @param {Record<string, unknown>} body
 * @param {string[]} duplicates paths of members that the body names twice
 * @param {Record<string, unknown>} fromForm
 * @throws {InvalidForm}
 */
export function checkUnchanged(body, duplicates, fromForm) {
  if (duplicates.length > 0) throw InvalidForm.of(`Named twice: ${pathList(duplicates)}`);

  const changed = changedPaths(body, fromForm);
  if (changed.length > 0) {
    throw InvalidForm.of(`The form has no place for the value at ${pathList(changed)}. `
      + 'Start it as JSON, or change it here');
  }
}

/** @param {string[]} paths */
function pathList(paths) {
  const shown = paths.slice(0, MAX_PATHS).map((path) => path || 'the top').join(', ');
  const left = paths.length - MAX_PATHS;
  return left > 0 ? `${shown} and ${count(left)} more` : shown;
}

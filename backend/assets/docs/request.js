// A request as an address. No elements here.

/** @typedef {{ parameter: OpenApiParameter, value: string }} ParameterValue */

/**
 * Puts the parameters where they belong. Empty ones are left out, except in the path.
 * @param {string} template such as `/api/v1/operations/{id}`
 * @param {ParameterValue[]} values
 */
export function requestAddress(template, values) {
  const query = new URLSearchParams();
  /** @type {Record<string, string>} */
  const headers = {};
  let path = template;
  for (const { parameter, value } of values) {
    if (parameter.in === 'path') {
      path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    } else if (value !== '') {
      if (parameter.in === 'query') query.set(parameter.name, value);
      else headers[parameter.name] = value;
    }
  }

  const search = query.toString();
  return { url: search ? `${path}?${search}` : path, headers };
}

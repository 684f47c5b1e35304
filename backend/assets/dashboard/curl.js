// A request as a curl command. No elements here.

/** @param {string} text */
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// In double quotes: the shell puts the token in, so that it is in no text.
const TOKEN_HEADER = '"Authorization: Bearer $KTRDR_TOKEN"';

/**
 * @typedef {object} CurlOptions
 * @property {Record<string, string>} [headers]
 * @property {string} [body]
 * @property {boolean} [withToken] whether the server asks for one
 * @property {string} [file] where to write the answer
 */

/**
 * The request for a shell.
 * @param {string} method
 * @param {string} url with its origin
 * @param {CurlOptions} options
 */
export function curlCommand(method, url, { headers = {}, body, withToken, file } = {}) {
  // An error must not end up in the file.
  const parts = file === undefined ? ['curl', '-s'] : ['curl', '-fsS', '-o', quote(file)];
  if (method !== 'GET') parts.push('-X', method);
  parts.push(quote(url));
  if (withToken) parts.push('-H', TOKEN_HEADER);
  for (const [name, value] of Object.entries(headers)) parts.push('-H', quote(`${name}: ${value}`));
  if (body) parts.push('-d', quote(body));
  return parts.join(' ');
}

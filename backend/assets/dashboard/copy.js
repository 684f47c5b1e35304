// Copies texts to the clipboard.

import { h, setAttribute } from './dom.js';
import { icon } from './icons.js';
import { toast } from './toast.js';

const SHOWN_MS = 1500;

/**
 * @param {string} text
 * @returns {Promise<void>} rejected when the browser does not allow it
 */
async function copyText(text) {
  // Pages without TLS have no clipboard, except on this machine.
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const before = document.activeElement;
  const area = h('textarea', { class: 'unseen', readonly: true, value: text });
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand('copy');
  area.remove();
  if (before instanceof HTMLElement) before.focus();
  if (!isCopied) throw new Error('the browser did not copy it');
}

/**
 * Copies a text, and says so.
 * @param {string} what for people, as in "Copied the id"
 * @param {string} text
 */
export async function copy(what, text) {
  try {
    await copyText(text);
    toast(`Copied ${what}`);
  } catch {
    toast(`The browser does not allow to copy ${what}`, 'error');
  }
}

/**
 * A small button that copies a text. It shows by a tick that it has.
 * @param {string} what for screen readers, as in "the id"
 * @param {() => string} read the text
 */
export function copyButton(what, read) {
  const button = h('button', {
    type: 'button', class: 'icon-button', title: `Copy ${what}`, 'aria-label': `Copy ${what}`,
  }, icon('copy'));
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  button.addEventListener('click', async () => {
    try {
      await copyText(read());
    } catch {
      toast(`The browser does not allow to copy ${what}`, 'error');
      return;
    }
    button.replaceChildren(icon('completed'));
    setAttribute(button, 'data-copied', 'yes');
    clearTimeout(timer);
    timer = setTimeout(() => {
      button.replaceChildren(icon('copy'));
      setAttribute(button, 'data-copied', null);
    }, SHOWN_MS);
  });
  return button;
}

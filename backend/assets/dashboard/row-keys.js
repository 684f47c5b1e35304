// Keys that go through the rows of a table and press the buttons of one.

/** @typedef {import('./keys.js').Shortcut} Shortcut */

/** The row that has the focus, wherever in it. */
const currentRow = () => document.activeElement?.closest('tr') ?? null;

/**
 * Presses a button, if it is there.
 * @param {ParentNode | null} parent
 * @param {string} action
 */
export function pressAction(parent, action) {
  const button = parent?.querySelector(`[data-action="${action}"]`);
  if (button instanceof HTMLButtonElement) button.click();
}

/**
 * @param {HTMLElement} body its rows have a link each, the first
 * @returns {Shortcut[]}
 */
export function rowKeys(body) {
  /** @param {number} step */
  function move(step) {
    const rows = [...body.querySelectorAll('tr')];
    const row = currentRow();
    const at = row ? rows.indexOf(row) : -1;
    const next = at < 0 ? rows[0] : rows[at + step];
    const link = next?.querySelector('a');
    link?.focus();
    link?.scrollIntoView({ block: 'nearest' });
  }

  return [
    { key: 'j', what: 'Next row', act: () => move(1) },
    { key: 'k', what: 'Row before', act: () => move(-1) },
    { key: 'r', what: 'Retry the operation of the row', act: () => pressAction(currentRow(), 'retry') },
    {
      key: 'c',
      what: 'Cancel the operation of the row; press it twice',
      act: () => pressAction(currentRow(), 'cancel'),
    },
  ];
}

/**
 * Picks the row, for what is done with many at once.
 * @returns {Shortcut}
 */
export function pickKey() {
  return {
    key: 'x',
    what: 'Pick the row, or no longer',
    act: () => {
      const box = currentRow()?.querySelector('.pick');
      if (box instanceof HTMLInputElement) box.click();
    },
  };
}

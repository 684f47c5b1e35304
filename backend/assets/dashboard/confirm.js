// A button that must be pressed twice: rows move, and what the button does cannot be undone.

import { setAttribute, setText } from './dom.js';

const SECOND_PRESS_MS = 6000;

/**
 * Makes the first press ask the question.
 * @param {HTMLButtonElement} button
 * @param {string} question
 * @param {string} id of what the button acts on, for screen readers
 * @returns {(event: MouseEvent) => boolean} whether this press confirms
 */
export function askBefore(button, question, id) {
  const label = button.textContent;
  const name = button.getAttribute('aria-label');
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  /** @param {KeyboardEvent} event */
  function resetByEscape(event) {
    if (event.key !== 'Escape') return;
    // A dialog around it stays open.
    event.preventDefault();
    reset();
  }

  function reset() {
    removeEventListener('keydown', resetByEscape);
    clearTimeout(timer);
    timer = undefined;
    setText(button, label);
    setAttribute(button, 'aria-label', name);
    button.style.whiteSpace = '';
  }

  function ask() {
    clearTimeout(timer);
    timer = setTimeout(reset, SECOND_PRESS_MS);
    // Wherever the focus is: a key of the row asks, too.
    addEventListener('keydown', resetByEscape);
    setText(button, question);
    setAttribute(button, 'aria-label', `${question} ${id}`);
    // The question is longer than a table has room for in one line.
    button.style.whiteSpace = 'normal';
  }

  button.addEventListener('blur', reset);
  return (event) => {
    // The second half of a double click is no answer.
    const isConfirmed = timer !== undefined && event.detail < 2;
    if (isConfirmed) reset();
    else ask();
    return isConfirmed;
  };
}

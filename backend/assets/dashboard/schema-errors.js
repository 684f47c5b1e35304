// Which field of a form a violation belongs to.
//
// Violations name a JSON pointer. Entries of lists and maps change their place and name while the
// form is edited, so their fields are known by a key that stays the same; the field around them
// finds the key of the entry that the pointer means.

import { childPath, unescapePart } from './exact.js';

/**
 * A place in the form that shows an error.
 * @typedef {object} ErrorSlot
 * @property {HTMLElement} element
 * @property {(message: string) => void} set shows a message, or none when it is empty
 * @property {() => void} focus
 * @property {() => boolean} isEmpty whether nothing is entered
 * @property {string} advice what a text should look like that does not match its pattern
 */

/**
 * @typedef {Api.Violation & { slot?: ErrorSlot }} FormViolation with its slot when that is known
 */

/** A form that cannot be sent as it is. */
export class InvalidForm extends Error {
  /** @param {FormViolation[]} violations */
  constructor(violations) {
    super(violations.map(({ message }) => message).join('; '));
    this.violations = violations;
  }

  /**
   * One violation of the whole form.
   * @param {string} message
   */
  static of(message) {
    return new InvalidForm([{ path: '', message }]);
  }
}

export class FieldErrors {
  /** @type {Map<string, ErrorSlot>} */
  #slots = new Map();
  /** @type {Map<string, (part: string) => string | undefined>} */
  #entryKeys = new Map();
  /** @type {FormViolation[] | null} */
  #found = null;
  #base;

  /** @param {string} base path of the form's value in the start body */
  constructor(base) {
    this.#base = base;
  }

  /**
   * @param {string} path
   * @param {ErrorSlot} slot
   */
  addSlot(path, slot) {
    this.#slots.set(path, slot);
  }

  /**
   * Says how the entries of a list or map are found.
   * @param {string} path
   * @param {(part: string) => string | undefined} keyOf the entry's key for a part of a pointer
   */
  setEntryKeys(path, keyOf) {
    this.#entryKeys.set(path, keyOf);
  }

  /**
   * Forgets the fields inside a path, which are about to be made again.
   * @param {string} path
   */
  forgetInside(path) {
    for (const known of [this.#slots, this.#entryKeys]) {
      for (const key of [...known.keys()]) if (key.startsWith(`${path}/`)) known.delete(key);
    }
    this.#entryKeys.delete(path);
  }

  /**
   * Forgets a field that was removed.
   * @param {string} path
   */
  forget(path) {
    this.forgetInside(path);
    this.#slots.delete(path);
  }

  /**
   * Notes, while the form is read, that a field cannot be sent.
   * @param {string} path
   * @param {string} message
   */
  refuse(path, message) {
    this.#found?.push({ path: '', message, slot: this.#slots.get(path) });
  }

  /**
   * Reads the form.
   * @template T
   * @param {() => T} read
   * @throws {InvalidForm} with everything that was refused
   */
  collect(read) {
    /** @type {FormViolation[]} */
    const found = [];
    this.#found = found;
    try {
      const value = read();
      if (found.length > 0) throw new InvalidForm(found);
      return value;
    } finally {
      this.#found = null;
    }
  }

  clear() {
    for (const slot of this.#slots.values()) slot.set('');
  }

  /**
   * Shows violations at their fields, or at the nearest field around them.
   * @param {Api.Violation[]} violations
   * @returns {{ unplaced: Api.Violation[], slots: ErrorSlot[] }} those without a field, and the
   *   fields that show one
   */
  show(violations) {
    const unplaced = [];
    const slots = [];
    for (const violation of violations) {
      const { slot, isExact } = this.#locate(violation);
      if (slot) {
        slot.set(messageAt(slot, isExact, violation.message));
        slots.push(slot);
      } else {
        unplaced.push(violation);
      }
    }
    return { unplaced, slots };
  }

  /** @param {Api.Violation} violation */
  #locate({ path, message }) {
    const missing = /^"([^"]+)" is a required property/.exec(message);
    const atMissing = missing && this.#nearestSlot(childPath(path, missing[1]));
    return atMissing?.isExact ? atMissing : this.#nearestSlot(path);
  }

  /**
   * The slot of a path or of the nearest field around it.
   * @param {string} path
   */
  #nearestSlot(path) {
    let at = this.#base;
    let slot = this.#slots.get(at);
    let isExact = path === at;
    for (const part of path.slice(this.#base.length).split('/').slice(1)) {
      at = this.#entryKeys.get(at)?.(unescapePart(part)) ?? `${at}/${part}`;
      isExact = this.#slots.has(at);
      slot = this.#slots.get(at) ?? slot;
    }
    return { slot, isExact };
  }
}

/**
 * @param {ErrorSlot} slot
 * @param {boolean} isExact whether the slot is the one of the violation's path
 * @param {string} message
 */
function messageAt(slot, isExact, message) {
  if (isExact && slot.isEmpty()) return 'This is required';
  if (isExact && slot.advice && / does not match "/.test(message)) {
    return `${slot.advice} (${message})`;
  }
  return message;
}

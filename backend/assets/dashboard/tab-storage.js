// What this tab keeps until it is closed. Other tabs do not see it.

/** @returns {Storage | null} null when the user's settings forbid it */
export function tabStorage() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

// Whether an operation can be resumed: that needs a checkpoint.

import { api, asApiError } from './api.js';
import { liveStream } from './stream.js';

export class CheckpointQuestion {
  /** Whether there is one, as far as is known. */
  exists = false;
  #id;
  #signal;
  #onAnswer;
  #askedFor = '';

  /**
   * @param {string} id
   * @param {AbortSignal} signal
   * @param {() => void} onAnswer
   */
  constructor(id, signal, onAnswer) {
    this.#id = id;
    this.#signal = signal;
    this.#onAnswer = onAnswer;
  }

  /**
   * Asks once for each end.
   * @param {Api.Operation} operation
   */
  async askAbout({ status, completed_at: completedAt, attempt }) {
    const isRepeatable = status === 'failed' || status === 'cancelled';
    if (!isRepeatable || attempt === 0 || this.#askedFor === completedAt) return;
    this.#askedFor = completedAt ?? '';
    try {
      const { resumes_from: from } = await api.checkpoint(this.#id, this.#signal);
      this.exists = from !== null;
      if (this.exists) this.#onAnswer();
    } catch (thrown) {
      if (this.#signal.aborted) return;
      this.#askedFor = '';
      liveStream.checkAfter(asApiError(thrown));
    }
  }
}

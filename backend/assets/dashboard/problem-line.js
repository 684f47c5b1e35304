// The line of a view that says why it could not be read.

import { asApiError } from './api.js';
import { h, setText } from './dom.js';
import { liveStream } from './stream.js';

export function problemLine() {
  const element = h('p', { class: 'problem', hidden: true });
  return {
    element,
    clear() {
      element.hidden = true;
    },
    /**
     * Says it, and looks whether the backend is still there.
     * @param {unknown} thrown
     */
    show(thrown) {
      const error = asApiError(thrown);
      liveStream.checkAfter(error);
      setText(element, error.message);
      element.hidden = false;
    },
  };
}

// @ts-check
/** What is wrong and what to do, and short news. */

const TOAST_MS = 4000;
const UNREAD_MS = 1500;
const COUNT_MS = 250;

/** Says what is wrong and what to do, one message at a time; its kind says when it is over. */
export class Messages {
  #root;
  #kind = '';
  #toastTimer = 0;
  #toasted_ms = 0;
  #countdown = 0;

  /** @param {Document} root holds the ids of index.html */
  constructor(root) {
    this.#root = root;
  }

  /** @param {string} kind @param {string} sentence @param {string} [action] on a button */
  say(kind, sentence, action = '', run = () => {}) {
    clearTimeout(this.#countdown);
    this.#kind = kind;
    const text = this.#find('message-text');
    if (text.textContent !== sentence) text.textContent = sentence; // else it is read out again
    const button = this.#find('message-action');
    Object.assign(button, { textContent: action, hidden: !action, onclick: run });
    this.#find('message').hidden = false;
  }

  /**
   * Say why there is a pause, and count it down on a button that ends it.
   *
   * @param {string} kind @param {string} sentence
   * @param {number | null} pause_s null: nothing to wait for @param {() => void} retry
   */
  sayPause(kind, sentence, pause_s, retry) {
    const end_ms = performance.now() + (pause_s ?? 0) * 1000;
    const count = () => {
      const left_s = Math.ceil((end_ms - performance.now()) / 1000);
      const action = left_s > 0 ? `Try now (${left_s} s)` : 'Trying…';
      this.say(kind, sentence, pause_s === null ? '' : action, retry);
      if (left_s > 0) this.#countdown = setTimeout(count, COUNT_MS);
    };
    count();
  }

  /** Take the message back if it is of one of these kinds. @param {string[]} kinds */
  unsay(...kinds) {
    if (!kinds.includes(this.#kind)) return;
    clearTimeout(this.#countdown);
    this.#find('message').hidden = true;
  }

  /** Say something for a few seconds; what was said a moment ago is not lost over it. */
  toast(sentence = '') {
    const toast = this.#find('toast');
    const now_ms = performance.now();
    const isRead = toast.hidden || now_ms - this.#toasted_ms > UNREAD_MS;
    const before = isRead || toast.textContent === sentence ? '' : (toast.textContent ?? '');
    toast.textContent = before.replace(/[.]?$/, before && '. ') + sentence;
    toast.hidden = false;
    this.#toasted_ms = now_ms;
    clearTimeout(this.#toastTimer);
    this.#toastTimer = setTimeout(() => (toast.hidden = true), TOAST_MS);
  }

  #find(/** @type {string} */ id) {
    return /** @type {HTMLElement} */ (this.#root.getElementById(id));
  }
}

// @ts-check
/**
 * Words over the picture of a view: the style that is shown, how many watch, and what the server
 * has to say to everybody, such as that it is about to stop.
 *
 * @typedef {(path: string, init?: RequestInit) => Promise<Response>} Ask
 * @typedef {{style: string, viewers: number, notice: string, version: string}} Told
 */

import { pause } from './pause.js';

const PAUSE_MS = 2000; // after a question without an answer
const KINDS = ['style', 'viewers', 'notice'];

/** Written in the order that was asked for; nothing without a wish. */
export class Overlay {
  #ask;
  #parts = /** @type {Map<string, HTMLElement>} */ (new Map());

  /** @param {HTMLElement} parent @param {string} wish such as "style,viewers" @param {Ask} ask */
  constructor(parent, wish, ask) {
    this.#ask = ask;
    const root = document.createElement('div');
    root.id = 'overlay';
    for (const kind of wish.split(',').filter(Boolean)) {
      if (!KINDS.includes(kind)) {
        console.warn(`overlay takes ${KINDS.join(', ')} (got "${kind}")`);
        continue;
      }
      const part = document.createElement('span');
      part.dataset.kind = kind;
      part.hidden = true;
      this.#parts.set(kind, part);
    }
    root.append(...this.#parts.values());
    if (this.#parts.size > 0) parent.append(root);
  }

  /** Keep it true until `signal` is aborted. @param {string} session @param {AbortSignal} signal */
  async follow(session, signal) {
    let version = '';
    while (this.#parts.size > 0 && !signal.aborted) {
      // The server answers when there is something else to write, or after 20 s.
      const path = `/view/${session}/overlay${version && `?after=${version}`}`;
      const response = await this.#ask(path, { signal, cache: 'no-store' }).catch(() => null);
      const told = response?.ok ? await response.json().catch(() => null) : null;
      if (told) this.#show(told);
      else await pause(PAUSE_MS, signal);
      version = told?.version ?? '';
    }
  }

  #show(/** @type {Told} */ { style, viewers, notice }) {
    // A hyphen joins the words of a style's name; what a person wrote may have one too.
    this.#write('style', style.replace(/(?<=\p{L})-(?=\p{L})/gu, ' '));
    this.#write('viewers', `${viewers} ${viewers === 1 ? 'viewer' : 'viewers'}`);
    this.#write('notice', notice);
  }

  /** @param {string} kind @param {string} text */
  #write(kind, text) {
    const part = this.#parts.get(kind);
    if (!part) return;
    part.textContent = text;
    part.hidden = !text;
  }
}

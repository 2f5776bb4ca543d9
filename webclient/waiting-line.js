// @ts-check
/**
 * A place in the line before a full server; it moves up, and in the end a session is offered.
 *
 * @typedef {{place: number, of: number, estimate_s: number, is_offered: boolean,
 *   version: number}} Standing
 *   `place`: from 1; `estimate_s`: when its turn may come
 */

import { withToken } from './bearer.js';
import { LiveError, toError } from './live-error.js';
import { pause } from './pause.js';

const PAUSE_MS = 1000;
const MOST_FAILURES = 5; // one after the other; the server keeps a place for ten seconds

/** Event: `standing`, its detail a Standing, whenever there is news. */
export class WaitingLine extends EventTarget {
  #url;
  #token;
  #place = /** @type {URL | null} */ (null);
  #life = new AbortController();

  /** @param {URL} url where places are given @param {string} token what the server asks for */
  constructor(url, token) {
    super();
    this.#url = url;
    this.#token = token;
  }

  /**
   * Take the last place and wait for its turn.
   *
   * @returns {Promise<string>} what a session is asked for with, within some seconds
   * @throws {Error} the list is full, the place is lost, or leave() was called
   */
  async wait() {
    const { signal } = this.#life;
    const init = { method: 'POST', signal: null }; // even when it is late, it says what to give up
    const response = await fetch(this.#url, withToken(this.#token, init)).catch(() => null);
    if (response?.status !== 201) throw await toReason(response);
    this.#place = new URL(response.headers.get('Location') ?? '', response.url);
    if (signal.aborted) this.#giveUp();
    signal.throwIfAborted();
    for (let standing = await response.json(); ; standing = await this.#ask(standing)) {
      this.dispatchEvent(new CustomEvent('standing', { detail: standing }));
      if (standing.is_offered) return this.#place.pathname.split('/').at(-1) ?? '';
    }
  }

  /** Give the place up. Calling it again does nothing. */
  leave() {
    if (this.#life.signal.aborted) return;
    this.#life.abort(new LiveError('Left the line.'));
    this.#giveUp();
  }

  #giveUp() {
    // Nothing to do about a server that does not answer: it gives the place up by itself.
    const init = withToken(this.#token, { method: 'DELETE', keepalive: true });
    if (this.#place) fetch(this.#place, init).catch(() => {});
  }

  /** @param {Standing} known @returns {Promise<Standing>} */
  async #ask({ version }) {
    const { signal } = this.#life;
    const url = `${this.#place}?after=${version}`;
    const init = withToken(this.#token, { signal, cache: 'no-store' });
    for (let failures = 0; ; failures++) {
      const response = await fetch(url, init).catch(() => null);
      signal.throwIfAborted();
      if (response?.ok) return response.json();
      if (response || failures >= MOST_FAILURES) throw await toReason(response);
      await pause(PAUSE_MS, signal);
      signal.throwIfAborted();
    }
  }
}

/** @param {Standing} standing @returns {string} it in words */
export function describe({ place, of, estimate_s }) {
  const where = place === 1 ? 'You are next' : `You are number ${place} of ${of} in line`;
  if (estimate_s < 60) return `${where}: in less than a minute, as it looks.`;
  const minutes = Math.ceil(estimate_s / 60);
  return `${where}: in about ${minutes === 1 ? 'a minute' : `${minutes} minutes`}, as it looks.`;
}

/** @param {Response | null | undefined} response */
async function toReason(response) {
  if (!response) return new LiveError('The server does not answer. Is it running?');
  const reason = await toError(response);
  reason.isFinal = false; // a place that is lost is followed by another
  return reason;
}

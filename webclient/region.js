// @ts-check
/**
 * Where the translation is shown: on all, on the person, or on what is behind.
 *
 * What the server cannot do is shown all the same, switched off, with its sentence.
 *
 * @typedef {import('./sdxs-live.js').Region} Region
 */

import { access } from './access.js';

/** The choice in the panel. Event: `choose` with the region. */
export class RegionChoice extends EventTarget {
  #root;
  #region = /** @type {Region} */ ('both');

  /** @param {Document} root holds the ids of index.html */
  constructor(root) {
    super();
    this.#root = root;
    for (const input of this.#inputs()) {
      input.addEventListener('change', () => {
        this.refuse('');
        this.dispatchEvent(new CustomEvent('choose', { detail: input.value }));
      });
    }
  }

  /** Ask the server which there are. */
  async fill() {
    const response = await access.ask('api/regions').catch(() => null);
    if (!response?.ok) return; // the next visit asks again; the server checks in any case
    /** @type {{regions: {name: Region, obstacle: string | null}[]}} */
    const { regions } = await response.json();
    for (const input of this.#inputs()) {
      const obstacle = regions.find(({ name }) => name === input.value)?.obstacle ?? '';
      input.disabled = Boolean(obstacle);
      input.parentElement?.setAttribute('title', obstacle);
      if (obstacle) this.refuse(obstacle);
    }
  }

  /** Show the one in force. @param {Region} [region] */
  update(region = 'both') {
    this.#region = region;
    for (const input of this.#inputs()) input.checked = input.value === region;
  }

  /** Say why a choice was not taken, and go back to the one in force; '' takes it back. */
  refuse(sentence = '') {
    const error = /** @type {HTMLElement} */ (this.#root.getElementById('region-error'));
    error.textContent = sentence;
    error.hidden = !sentence;
    if (sentence) this.update(this.#region);
  }

  #inputs() {
    return /** @type {NodeListOf<HTMLInputElement>} */ (
      this.#root.querySelectorAll('input[name="region"]')
    );
  }
}

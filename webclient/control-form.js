// @ts-check
/**
 * The form of the controls in the panel.
 *
 * @typedef {import('./sdxs-live.js').Controls} Controls
 */

import { NUMBERS, READERS } from './settings.js';

/** The prompt and the sliders. They show what the server applies, and why it refused. */
export class ControlForm {
  #root;
  #send;
  #shown = /** @type {Partial<Controls>} */ ({});
  #waiting = /** @type {Partial<Controls>} */ ({}); // changed while others were under way
  #isSending = false;

  /**
   * @param {Document} root holds the ids of index.html
   * @param {(set: Partial<Controls>) => Promise<void>} send rejected with the server's sentence
   */
  constructor(root, send) {
    this.#root = root;
    this.#send = send;
    for (const name of NUMBERS) {
      const input = this.#input(name);
      input.addEventListener('input', () => {
        this.#label(input);
        this.#read(name, input);
      });
    }
    const prompt = this.#input('prompt');
    prompt.form?.addEventListener('submit', (event) => {
      event.preventDefault();
      this.change({ prompt: prompt.value.trim() });
    });
    prompt.addEventListener('keydown', ({ key }) => key === 'Escape' && this.refuse(''));
  }

  /** All that makes the look, set here or chosen by the server. @returns {Partial<Controls>} */
  get look() {
    const { prompt } = this.#shown;
    const numbers = NUMBERS.map((name) => [name, this.#input(name).valueAsNumber]);
    const known = numbers.filter(([, value]) => Number.isFinite(value)); // one may be being typed
    return { ...(prompt ? { prompt } : {}), ...Object.fromEntries(known) };
  }

  /** Show what is in force, except what is being changed. @param {Partial<Controls>} controls */
  update(controls) {
    Object.assign(this.#shown, controls);
    if (!this.#isSending) this.#show();
  }

  /** Ask for a change; one request at a time, and what comes meanwhile goes together. */
  async change(/** @type {Partial<Controls>} */ set) {
    Object.assign(this.#waiting, set);
    if (this.#isSending) return;
    this.#isSending = true;
    while (Object.keys(this.#waiting).length > 0) {
      const next = this.#waiting;
      this.#waiting = {};
      try {
        await this.#send(next);
        Object.assign(this.#shown, next);
        if ('prompt' in next) this.warn('prompt', '');
      } catch (error) {
        this.warn('prompt', /** @type {Error} */ (error).message);
      }
    }
    this.#isSending = false;
    this.#show();
  }

  /** Put a refusal beside the prompt, which stays to be mended; '' takes both back. */
  refuse(sentence = '') {
    this.warn('prompt', sentence);
    this.#show();
  }

  /**
   * Put a sentence beside a control; '' takes it back.
   *
   * @param {string} name @param {string} sentence
   * @returns {boolean} false: there is no control of this name
   */
  warn(name, sentence) {
    const error = this.#root.getElementById(`${name}-error`);
    if (!error) return false;
    error.textContent = sentence;
    error.hidden = !sentence;
    this.#input(name).ariaInvalid = String(Boolean(sentence));
    return true;
  }

  /** @param {typeof NUMBERS[number]} name @param {HTMLInputElement} input */
  #read(name, input) {
    try {
      this.change({ [name]: READERS[name](input.value) });
      this.warn(name, '');
    } catch (error) {
      const isEmpty = !input.value && !input.validity.badInput; // about to be filled
      this.warn(name, isEmpty ? '' : `${name} ${/** @type {Error} */ (error).message}`);
    }
  }

  #show() {
    for (const name of NUMBERS) {
      const input = this.#input(name);
      if (input.ariaInvalid === 'true') continue; // stays to be mended
      input.valueAsNumber = this.#shown[name] ?? input.valueAsNumber;
      this.#label(input);
    }
    const prompt = this.#input('prompt');
    if (prompt.ariaInvalid !== 'true') prompt.value = this.#shown.prompt ?? '';
  }

  /** Write a slider's value beside it, and fill its track so far. */
  #label(/** @type {HTMLInputElement} */ input) {
    const { id, max, valueAsNumber: value, nextElementSibling: output } = input;
    if (!(output instanceof HTMLOutputElement)) return;
    output.value = id.endsWith('_s') ? `${value.toFixed(1)} s` : `${(value * 100).toFixed()} %`;
    input.style.setProperty('--at', `${(100 * value) / Number(max)}%`);
  }

  #input(/** @type {string} */ id) {
    return /** @type {HTMLInputElement} */ (this.#root.getElementById(id));
  }
}

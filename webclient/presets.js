// @ts-check
/**
 * The server's presets, looks by name, and its playlists: choose, save, delete, play.
 *
 * Events: `choose`, its detail the look of a preset; `link`, its detail a look for an address;
 * `play`, its detail a playlist's name, and `stop`.
 *
 * @typedef {{prompt?: string, strength?: number, stability?: number, seed?: number,
 *   transition_s?: number}} Look
 * @typedef {Look & {name: string}} Preset
 * @typedef {{name: string, loop: boolean, steps: {preset: string, seconds: number}[]}} Playlist
 * @typedef {{presets: Preset[], playlists: Playlist[], problems: string[], may_save: boolean,
 *   refusal: string}} Book
 */

import { access } from './access.js';
import { toError } from './live-error.js';
import { write } from './write.js';

const HOTKEYS = 9;
const NO_ANSWER = 'The server does not answer. Is it running?';
const STEP_FORM = 'Each line is a preset and its seconds, such as “evening 30”';
const STEP = /^(.*\S)\s+(\d+(?:\.\d+)?)$/;

export class Presets extends EventTarget {
  #root;
  #getLook;
  /** @type {Book} */
  #book = { presets: [], playlists: [], problems: [], may_save: false, refusal: '' };
  #running = /** @type {import('./sdxs-live.js').Running | null} */ (null);
  #problem = ''; // why the last wish was refused

  /** @param {Document} root holds the ids of index.html @param {() => Look} getLook that is set */
  constructor(root, getLook) {
    super();
    this.#root = root;
    this.#getLook = getLook;
    this.#find('presets').addEventListener('toggle', () => this.refresh());
    this.#onSubmit('preset-form', () => this.#save());
    this.#onSubmit('playlist-form', () => this.#savePlaylist());
  }

  /** Ask the server for its list. */
  async refresh() {
    await this.#ask('', 'GET');
  }

  /** Choose one by its place, from 1. @returns {boolean} whether there is one */
  chooseNumber(number = 1) {
    const preset = this.#book.presets[number - 1];
    if (preset) this.#choose(preset);
    return preset !== undefined;
  }

  /** Show what the session plays. @param {import('./sdxs-live.js').Running | null} running */
  updateRunning(running) {
    if (JSON.stringify(running) === JSON.stringify(this.#running)) return;
    this.#running = running;
    this.#show();
  }

  #choose(/** @type {Preset} */ { name, ...look }) {
    this.#tell('choose', look);
  }

  async #save() {
    const name = this.#input('preset-name');
    const path = `presets/${encodeURIComponent(name.value.trim())}`;
    if (await this.#ask(path, 'PUT', this.#getLook())) name.value = '';
  }

  async #savePlaylist() {
    const name = this.#input('playlist-name');
    const steps = /** @type {HTMLTextAreaElement} */ (this.#find('playlist-steps'));
    const lines = steps.value.split('\n').filter((line) => line.trim());
    const wrong = lines.find((line) => !STEP.test(line.trim()));
    if (wrong || lines.length === 0) {
      this.#problem = `${STEP_FORM} (got “${wrong ?? ''}”).`;
      return this.#show();
    }
    const rows = lines.map((line) => {
      const [, preset, seconds] = /** @type {RegExpExecArray} */ (STEP.exec(line.trim()));
      return { preset, seconds: Number(seconds) };
    });
    const playlist = { steps: rows, loop: this.#input('playlist-loop').checked };
    const path = `playlists/${encodeURIComponent(name.value.trim())}`;
    if (await this.#ask(path, 'PUT', playlist)) name.value = steps.value = '';
  }

  /**
   * @param {string} path below api/; empty: the list alone @param {string} method
   * @param {object} [body] @returns {Promise<boolean>} whether it was done
   */
  async #ask(path, method, body) {
    const url = `api/${path || 'presets'}`;
    const text = body && JSON.stringify(body);
    const init = /** @type {RequestInit} */ ({ method, body: text, cache: 'no-store' });
    const response = await access.ask(url, init).catch(() => null);
    if (response?.ok) this.#book = await response.json();
    if (path) this.#problem = '';
    if (path && !response?.ok) {
      this.#problem = response ? (await toError(response)).message : NO_ANSWER;
    }
    this.#show();
    return Boolean(response?.ok);
  }

  #show() {
    const { presets, playlists, problems, refusal } = this.#book;
    const sentences = [this.#problem, refusal, ...problems].filter(Boolean);
    write(this.#find('presets-note'), sentences.join('\n'));
    this.#find('presets').toggleAttribute('data-may-save', this.#book.may_save);
    const rows = presets.map((each, at) => this.#toRow(each, at));
    const playRows = playlists.map((each) => this.#toPlayRow(each));
    keepFocus(this.#find('presets'), () => {
      this.#find('preset-list').replaceChildren(...rows);
      this.#find('playlist-list').replaceChildren(...playRows);
    });
    this.#find('playlists-title').hidden = playlists.length === 0 && !this.#book.may_save;
    const { name, step, steps } = this.#running ?? {};
    this.#find('presets-open').textContent = name ? `${name} ${step}/${steps}` : 'Presets';
  }

  #toRow(/** @type {Preset} */ preset, at = 0) {
    const { name, ...look } = preset;
    const key = document.createElement('kbd');
    key.textContent = at < HOTKEYS ? String(at + 1) : '';
    const choose = toButton('preset', name, () => this.#choose(preset));
    choose.append(toSmall(describe(look)));
    const link = toButton('link', 'Link', () => this.#tell('link', look), `Copy a link to ${name}`);
    return this.#toItem('presets', name, key, choose, link);
  }

  #toPlayRow(/** @type {Playlist} */ { name, loop, steps }) {
    const isRunning = this.#running?.name === name;
    const act = () => (isRunning ? this.#tell('stop') : this.#tell('play', name));
    const words = isRunning ? 'Stop' : 'Play';
    const title = document.createElement('b');
    title.textContent = name;
    const order = steps.map(({ preset, seconds }) => `${preset} ${seconds} s`).join(', ');
    title.append(toSmall(order + (loop ? ', again and again' : '')));
    const play = toButton('play', words, act, `${words} ${name}`);
    const row = this.#toItem('playlists', name, title, play);
    row.dataset.state = isRunning ? 'running' : 'available';
    return row;
  }

  /** @param {string} kind @param {string} name @param {HTMLElement[]} parts */
  #toItem(kind, name, ...parts) {
    const row = document.createElement('li');
    row.dataset.name = name;
    const path = `${kind}/${encodeURIComponent(name)}`;
    const erase = toButton('delete', '×', () => this.#ask(path, 'DELETE'), `Delete ${name}`);
    erase.hidden = !this.#book.may_save;
    row.append(...parts, erase);
    return row;
  }

  /** @param {string} type @param {unknown} [detail] */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {string} id @param {() => void} act */
  #onSubmit(id, act) {
    this.#find(id).addEventListener('submit', (event) => {
      event.preventDefault();
      act();
    });
  }

  #find(/** @type {string} */ id) {
    return /** @type {HTMLElement} */ (this.#root.getElementById(id));
  }

  #input(/** @type {string} */ id) {
    return /** @type {HTMLInputElement} */ (this.#find(id));
  }
}

/** Say a look in a line. @param {Look} look */
function describe({ prompt, strength, stability, seed, transition_s }) {
  const percent = (/** @type {number} */ value) => `${Math.round(value * 100)} %`;
  const parts = [
    prompt,
    strength === undefined ? '' : `strength ${percent(strength)}`,
    stability === undefined ? '' : `stability ${percent(stability)}`,
    transition_s === undefined ? '' : `${transition_s} s`,
    seed ? `seed ${seed}` : '',
  ];
  return parts.filter(Boolean).join(' · ');
}

/** @param {string} className @param {string} text @param {() => void} act @param {string} [label] */
function toButton(className, text, act, label) {
  const button = document.createElement('button');
  Object.assign(button, { type: 'button', className: `small ${className}`, textContent: text });
  if (label) button.ariaLabel = button.title = label;
  button.addEventListener('click', act);
  return button;
}

function toSmall(/** @type {string} */ text) {
  return Object.assign(document.createElement('small'), { textContent: text });
}

/** Make rows anew without taking the focus away. @param {HTMLElement} list @param {() => void} make */
function keepFocus(list, make) {
  const focus = list.querySelector(':focus');
  const row = focus?.closest('li');
  make();
  if (!row?.dataset.name) return;
  const kind = focus?.classList.item(1);
  const same = `li[data-name=${CSS.escape(row.dataset.name)}] .${kind}`;
  /** @type {HTMLElement | null} */ (list.querySelector(same))?.focus();
}

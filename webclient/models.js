// @ts-check
/**
 * The server's models: a list from which one is loaded for everybody, and how fast the one
 * that runs is on the server's machine.
 *
 * Event: `running`, its detail the Model that runs now, and `isFirst` when the page knew of none
 * before.
 *
 * @typedef {{name: string, title: string, licence: string, size_mb: number, strength: string,
 *   free_text: boolean, state: 'available' | 'loading' | 'running' | 'failed', detail: string,
 *   share: number | null, size: string, rate_hz: number | null}} Model
 * @typedef {{version: number, is_busy: boolean, may_load: boolean, refusal: string,
 *   models: Model[]}} List
 *   `is_busy`: there will be news soon
 */

import { access } from './access.js';
import { toError } from './live-error.js';
import { pause } from './pause.js';
import { write } from './write.js';

const FAILURE_PAUSE_MS = 2000;
const FASTEST_HZ = 60; // beyond it a number says nothing: no camera gives more
const SLOWEST_HZ = 1; // below it the server shows a sign rather than a film
const NO_ANSWER = 'The server does not answer. Is it running?';
const WORDS = { available: '', loading: 'loading', running: 'running', failed: 'failed' };

export class ModelList extends EventTarget {
  #list;
  #note;
  #pace;
  #isOpen;
  #version = /** @type {number | null} */ (null);
  #running = /** @type {Model | null} */ (null);
  #isFollowing = false;
  #problem = ''; // why nothing can be loaded, or was not
  /** @type {Map<string, Row>} */
  #rows = new Map();

  /**
   * @param {Document} root holds the ids of index.html
   * @param {() => boolean} isOpen whether a person looks at the list
   */
  constructor(root, isOpen) {
    super();
    const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (root.getElementById(id));
    this.#list = $('model-list');
    this.#note = $('models-note');
    this.#pace = $('pace');
    this.#isOpen = isOpen;
  }

  /** Ask the server, and go on asking for as long as there is news or somebody looks. */
  async follow() {
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    let list = await this.#ask('');
    while (list?.is_busy || this.#isOpen()) {
      // The server answers when something changes, or after 20 s.
      const next = await this.#ask(this.#version === null ? '' : `?after=${this.#version}`);
      if (!next) await pause(FAILURE_PAUSE_MS);
      list = next ?? list;
    }
    this.#isFollowing = false;
  }

  /** @param {string} query @returns {Promise<List | null>} null if there is no answer */
  async #ask(query) {
    const response = await access.ask(`api/models${query}`, { cache: 'no-store' }).catch(() => null);
    const list = response?.ok ? await response.json().catch(() => null) : null;
    if (list) this.#show(list);
    return list;
  }

  async #load(/** @type {string} */ name) {
    const url = `api/models/${encodeURIComponent(name)}/load`;
    const response = await access.ask(url, { method: 'POST' }).catch(() => null);
    this.#problem = '';
    if (response?.ok) this.#show(await response.json());
    else this.#complain(response ? (await toError(response)).message : NO_ANSWER);
    this.follow();
  }

  #show(/** @type {List} */ list) {
    this.#version = list.version;
    this.#complain(list.refusal || this.#problem);
    const isLoading = list.models.some(({ state }) => state === 'loading');
    for (const model of list.models) {
      const row = this.#rows.get(model.name) ?? this.#place(model.name);
      row.show(model, list.may_load, isLoading);
    }
    const running = list.models.find(({ state }) => state === 'running') ?? null;
    this.#showPace(running);
    const isFirst = !this.#running;
    const isOther = running && running.name !== this.#running?.name;
    this.#running = running ?? this.#running;
    if (!isOther) return;
    this.dispatchEvent(new CustomEvent('running', { detail: { ...running, isFirst } }));
  }

  #place(/** @type {string} */ name) {
    const row = new Row(() => this.#load(name));
    this.#rows.set(name, row);
    this.#list.append(row.element);
    return row;
  }

  #complain(sentence = '') {
    this.#problem = sentence;
    write(this.#note, sentence);
  }

  #showPace(/** @type {Model | null} */ running) {
    const rate_hz = running?.rate_hz ?? null;
    this.#pace.hidden = rate_hz === null;
    if (rate_hz === null) return;
    const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
    const use = rate_hz < SLOWEST_HZ ? ': for pictures and files, not live' : '';
    const where = isHere ? 'this machine' : location.hostname;
    this.#pace.textContent = `${toWords(rate_hz)} on ${where}${use}.`;
  }
}

/** One line of the list; its elements stay, so that the focus does too. */
class Row {
  element = document.createElement('li');
  #parts = {
    title: document.createElement('b'),
    state: document.createElement('span'),
    facts: document.createElement('small'),
    strength: document.createElement('small'),
    detail: document.createElement('p'),
    bar: document.createElement('progress'),
    load: document.createElement('button'),
  };

  /** @param {() => void} load asks for this model */
  constructor(load) {
    const { title, state, facts, strength, detail, bar, load: button } = this.#parts;
    this.element.append(title, state, button, facts, strength, detail, bar);
    Object.assign(button, { type: 'button', className: 'small', textContent: 'Load' });
    button.addEventListener('click', load);
    detail.className = 'model-detail';
    detail.setAttribute('role', 'status');
  }

  /** @param {Model} model @param {boolean} mayLoad @param {boolean} isLoading any of them */
  show(model, mayLoad, isLoading) {
    const { title, state, facts, strength, detail, bar, load } = this.#parts;
    const { size, size_mb, licence, rate_hz } = model;
    this.element.dataset.state = model.state;
    this.element.dataset.name = model.name;
    const hasButton = mayLoad && (model.state === 'available' || model.state === 'failed');
    write(title, model.title);
    write(state, WORDS[model.state]);
    write(
      facts,
      [
        model.name,
        size_mb ? `${size_mb < 10 ? size_mb : Math.round(size_mb)} MB` : '',
        licence,
        size.replace('x', '×'),
        rate_hz === null ? 'not measured yet' : `${toWords(rate_hz)} here`,
      ]
        .filter(Boolean)
        .join(' · '),
    );
    write(strength, model.strength && `Strength: ${model.strength}`);
    write(detail, model.detail);
    load.hidden = !hasButton;
    load.disabled = isLoading;
    load.ariaLabel = `Load ${model.name}`;
    bar.hidden = model.state !== 'loading';
    bar.ariaLabel = `Loading ${model.name}`;
    if (model.share === null) bar.removeAttribute('value');
    else bar.value = model.share;
  }
}

function toWords(rate_hz = 0) {
  if (rate_hz > FASTEST_HZ) return `more than ${FASTEST_HZ} frames a second`;
  const figure = rate_hz.toFixed(rate_hz >= 10 ? 0 : 1).replace('.0', '');
  return `about ${figure} ${figure === '1' ? 'frame' : 'frames'} a second`;
}

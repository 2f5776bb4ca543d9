// @ts-check
/**
 * The styles on a shelf, each shown on the person's own picture.
 *
 * Event: `choose`, its detail the style's name. Thumbnails are made by the server, one after
 * the other and at low priority, since the live picture needs the same model.
 *
 * @typedef {{name: string, synonyms: string[]}} Style
 * @typedef {(ctx: CanvasRenderingContext2D) => void} Draw fills a canvas with a picture
 */

import { access } from './access.js';
import { pause } from './pause.js';

const THUMBNAIL_PX = 160;
const POSTER_PX = 640;
const ASPECT = 4 / 3;
const BETWEEN_MS = 120; // leaves the model to the live picture most of the time
const BUSY_PAUSE_S = 2;
const MOST_REFUSALS = 30;

export class Shelf extends EventTarget {
  #list;
  #getDraw;
  #prompt = '';
  /** @type {Style[]} */
  #styles = [];
  #images = /** @type {Map<string, HTMLImageElement>} */ (new Map());
  #work = new AbortController();

  /** @param {HTMLElement} list of the role "radiogroup" @param {() => Draw} getDraw */
  constructor(list, getDraw) {
    super();
    this.#list = list;
    this.#getDraw = getDraw;
    list.addEventListener('change', (event) => {
      const { value } = /** @type {HTMLInputElement} */ (event.target);
      this.dispatchEvent(new CustomEvent('choose', { detail: value }));
    });
  }

  /** How to blend two of them, in the words of the prompt. */
  get example() {
    const [one, other] = this.#styles;
    return other ? `${one.name}:0.6 + ${other.name}:0.4` : '';
  }

  /** Ask the server for its styles, unless they are known, and make their thumbnails. */
  async fill() {
    if (this.#styles.length === 0) await this.#ask();
    await this.refresh();
  }

  /** Do so although styles are known: another model runs. */
  async fillAnew() {
    await this.#ask();
    await this.refresh();
  }

  async #ask() {
    const response = await access.ask('api/styles').catch(() => null);
    if (!response?.ok) return;
    this.#styles = (await response.json()).styles;
    this.#images.clear();
    this.#list.replaceChildren(...this.#styles.map((style) => this.#place(style)));
    this.select(this.#prompt);
  }

  /** Mark the style of this prompt; a blend or free words mark none. */
  select(prompt = '') {
    this.#prompt = prompt;
    const words = prompt.trim().toLowerCase();
    const style = words
      ? this.#styles.find(({ name, synonyms }) => [name, ...synonyms].includes(words))
      : this.#styles[0]; // the server's own default
    for (const input of this.#list.querySelectorAll('input')) {
      input.checked = input.value === style?.name;
      if (input.checked) reveal(this.#list, /** @type {HTMLElement} */ (input.parentElement));
    }
  }

  /** The name of the marked style, if one is. */
  get chosen() {
    return this.#list.querySelector('input:checked')?.getAttribute('value') ?? '';
  }

  /** The name of the style so many places further on, round and round. */
  neighbour(offset = 1) {
    const inputs = [...this.#list.querySelectorAll('input')];
    const at = inputs.findIndex((input) => input.checked);
    const next = at < 0 && offset > 0 ? 0 : at + offset;
    return inputs.at(next % (inputs.length || 1))?.value;
  }

  /** Make all thumbnails anew; a later call ends an earlier one. */
  async refresh() {
    this.#work.abort();
    const { signal } = (this.#work = new AbortController());
    this.#list.setAttribute('aria-busy', 'true');
    const body = await toJpeg(this.#getDraw(), THUMBNAIL_PX);
    const waiting = new Set(this.#images.keys());
    while (waiting.size > 0) {
      const name = this.#chooseNext([...waiting]);
      waiting.delete(name);
      // A style that the server does not know any more: another model came, and this list goes.
      const picture = await translate(name, body, signal).catch(() => null);
      if (signal.aborted || !picture) break;
      show(/** @type {HTMLImageElement} */ (this.#images.get(name)), picture);
      await pause(BETWEEN_MS, signal);
    }
    if (!signal.aborted) this.#list.removeAttribute('aria-busy');
  }

  /** What a person sees comes first. @param {string[]} names not empty */
  #chooseNext(names) {
    const shelf = this.#list.getBoundingClientRect();
    const isSeen = (/** @type {string} */ name) => {
      const { top, bottom, left, right } = this.#frame(name).getBoundingClientRect();
      const isBeside = right <= shelf.left || left >= shelf.right;
      return !isBeside && bottom > shelf.top && top < Math.min(shelf.bottom, innerHeight);
    };
    return names.find(isSeen) ?? names[0];
  }

  #frame(name = '') {
    return /** @type {HTMLElement} */ (this.#images.get(name)?.parentElement);
  }

  #place(/** @type {Style} */ { name, synonyms }) {
    const input = Object.assign(document.createElement('input'), { type: 'radio', value: name });
    input.name = 'style';
    const image = Object.assign(document.createElement('img'), { alt: '', hidden: true });
    const frame = Object.assign(document.createElement('span'), { className: 'style-frame' });
    frame.append(image);
    const caption = document.createElement('span');
    caption.className = 'style-name';
    caption.textContent = name.replaceAll('-', ' ');
    const label = document.createElement('label');
    label.className = 'style';
    label.title = [name, ...synonyms].join(', ');
    label.append(input, frame, caption);
    this.#images.set(name, image);
    return label;
  }
}

/**
 * Show one picture in one style.
 *
 * @param {HTMLImageElement} image @param {string} prompt @param {Draw} draw
 * @throws {Error} the server's sentence: it does not know the prompt
 */
export async function showPreview(image, prompt, draw) {
  const body = await toJpeg(draw, POSTER_PX);
  const picture = await translate(prompt, body, new AbortController().signal);
  if (picture) show(image, picture);
}

/** @param {HTMLImageElement} image @param {Blob} picture */
function show(image, picture) {
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(picture);
  image.hidden = false;
}

/**
 * @param {string} prompt @param {Blob} body @param {AbortSignal} signal
 * @returns {Promise<Blob | null>} null if the server has gone or stays busy, or after an abort
 * @throws {Error} the server's sentence: it does not know the prompt
 */
async function translate(prompt, body, signal) {
  const url = `api/preview?${new URLSearchParams({ prompt })}`;
  const headers = { 'Content-Type': 'image/jpeg' };
  const init = /** @type {RequestInit} */ ({ method: 'POST', headers, body, signal });
  for (let refusals = 0; refusals < MOST_REFUSALS && !signal.aborted; refusals++) {
    const response = await access.ask(url, { ...init, priority: 'low' }).catch(() => null);
    if (!response) return null;
    if (response.status === 401) return null; // the page asks for the token
    if (response.ok) return response.blob().catch(() => null); // aborted half-way
    if (response.status === 422) throw new Error((await response.json()).detail);
    await pause(1000 * (Number(response.headers.get('Retry-After')) || BUSY_PAUSE_S), signal);
  }
  return null;
}

/** @param {Draw} draw @param {number} width @returns {Promise<Blob>} */
function toJpeg(draw, width) {
  const size = { width, height: width / ASPECT };
  const canvas = Object.assign(document.createElement('canvas'), size);
  draw(/** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d')));
  const encode = (/** @type {BlobCallback} */ done) => canvas.toBlob(done, 'image/jpeg', 0.9);
  return new Promise((resolve) => encode((blob) => resolve(/** @type {Blob} */ (blob))));
}

/** Scroll the shelf, and only the shelf, until `item` is on it. */
function reveal(/** @type {HTMLElement} */ list, /** @type {HTMLElement} */ item) {
  const shelf = list.getBoundingClientRect();
  const { top, bottom, left, right } = item.getBoundingClientRect();
  list.scrollBy({
    top: Math.min(0, top - shelf.top) + Math.max(0, bottom - shelf.bottom),
    left: Math.min(0, left - shelf.left) + Math.max(0, right - shelf.right),
  });
}

/** Draw the middle of a picture so that it fills the canvas. */
export function drawCover(
  /** @type {CanvasRenderingContext2D} */ ctx,
  /** @type {HTMLVideoElement} */ video,
) {
  const { width, height } = ctx.canvas;
  const ratio = Math.max(width / video.videoWidth, height / video.videoHeight);
  const [w, h] = [video.videoWidth * ratio, video.videoHeight * ratio];
  ctx.drawImage(video, (width - w) / 2, (height - h) / 2, w, h);
}

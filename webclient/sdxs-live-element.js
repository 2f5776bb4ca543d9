// @ts-check
/**
 * `<sdxs-live>`: a translated camera on any page.
 *
 *     <script type="module" src="sdxs-live-element.js"></script>
 *     <sdxs-live source="camera" prompt="ink-wash" strength="0.8" autostart></sdxs-live>
 *
 * Attributes: `server` (base URL; that of this file without it), `source` (as in camera.js),
 * `name` (under which others find the session, as in /view/{name}), `token` (for a server that
 * asks for one; who can read the page can read it), `autostart`, `mirrored`,
 * and the controls `prompt`, `strength`, `stability`, `seed`, `transition_s`, `bypass`, `freeze`,
 * `region`. A changed control acts at once.
 * Events: those of SdxsLive, and `source` with `{source, state}`, where `state` is `open`,
 * `muted` (it gives no frames for now), `ended` (by itself) or `closed`; and `microphone` with
 * `{isOn}`.
 *
 * @typedef {import('./camera.js').Source} Source
 * @typedef {import('./sdxs-live.js').Controls} Controls
 */

import { SourceError, openSource } from './camera.js';
import { openMicrophone } from './microphone.js';
import { SdxsLive, VERSION } from './sdxs-live.js';

const TEXTS = ['prompt', 'region'];
const FLAGS = ['bypass', 'freeze'];
const CONTROLS = [...TEXTS, 'strength', 'stability', 'seed', 'transition_s', ...FLAGS];
const EVENTS = ['state', 'controls', 'steered', 'refused', 'stats', 'notice'];
// A constructed sheet, since a strict Content-Security-Policy forbids <style>.
const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
  :host { display: block }
  video { display: block; width: 100%; height: 100%; object-fit: contain }
  :host([mirrored]) video { transform: scaleX(-1) }
`);

export class SdxsLiveElement extends HTMLElement {
  static VERSION = VERSION;
  static observedAttributes = CONTROLS;

  /** Plays the translated picture. */
  video = document.createElement('video');
  #controls = /** @type {Partial<Controls>} */ ({}); // until there is a connection to hold them
  #live = /** @type {SdxsLive | null} */ (null);
  #source = /** @type {Source | null} */ (null);
  #microphone = /** @type {MediaStreamTrack | null} */ (null);
  #opening = {}; // whose turn it is to open a source; a later one wins

  constructor() {
    super();
    const shadow = this.attachShadow({ mode: 'open' });
    shadow.adoptedStyleSheets = [SHEET];
    Object.assign(this.video, { autoplay: true, muted: true, playsInline: true });
    shadow.append(this.video);
  }

  connectedCallback() {
    if (!this.hasAttribute('autostart')) return;
    this.start().catch(({ message }) => {
      this.#emit('state', { state: 'failed', sentence: message, retry_in_s: null });
    });
  }

  disconnectedCallback() {
    this.stop();
  }

  /** @param {string} name @param {string | null} _old @param {string | null} text */
  attributeChangedCallback(name, _old, text) {
    const isFlag = FLAGS.includes(name);
    if (text === null && !isFlag) return;
    const value = isFlag ? text !== null : TEXTS.includes(name) ? text : Number(text);
    this.set({ [name]: value }).catch(({ message }) => this.#emit('refused', { detail: message }));
  }

  get state() {
    return this.#live?.state ?? 'idle';
  }

  /** The id of the session that is open, as in /sessions/{id}; empty without one. */
  get session() {
    return this.#live?.session ?? '';
  }

  /** What the camera sees, or null. */
  get source() {
    return this.#source;
  }

  /**
   * Open a source and translate it; while running, go over to another source, or stay with
   * the old one if the other cannot be opened.
   *
   * @param {string} [name] @param {File | null} [file]
   * @throws {import('./camera.js').SourceError}
   */
  async start(name = this.getAttribute('source') ?? 'camera', file = null) {
    const source = await this.#open(name, file);
    if (!source) return;
    const isRunning = ['connecting', 'waiting', 'live', 'reconnecting'].includes(this.state);
    if (isRunning) await this.#live?.replaceTrack(source.track);
    this.#take(source);
    if (!isRunning) this.#connect(source);
  }

  /** End the session and let the camera go. */
  stop() {
    this.#opening = {};
    this.#live?.close();
    this.#take(null);
  }

  /** Change controls, as SdxsLive.set() does. @param {Partial<Controls>} set */
  async set(set) {
    if (this.#live) await this.#live.set(set);
    else Object.assign(this.#controls, set);
  }

  retry() {
    this.#live?.retry();
  }

  /**
   * Send the microphone along, or stop that; it is off when a session begins, and the video here
   * stays muted, so that nobody hears himself.
   *
   * @param {boolean} isOn
   * @throws {import('./camera.js').SourceError}
   */
  async setMicrophone(isOn) {
    if (isOn === Boolean(this.#microphone)) return;
    if (!isOn) return this.#takeMicrophone(null);
    const track = await openMicrophone();
    if (!this.#source || this.#microphone) return track.stop(); // stopped, or on, meanwhile
    track.addEventListener('ended', () => track === this.#microphone && this.#takeMicrophone(null));
    await this.#takeMicrophone(track);
  }

  /** @returns {Promise<Blob>} the picture on screen, as PNG, at its own size */
  snapshot() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) return Promise.reject(new Error('There is no picture yet: press Start first.'));
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
    if (this.hasAttribute('mirrored')) ctx.setTransform(-1, 0, 0, 1, width, 0);
    ctx.drawImage(this.video, 0, 0);
    return new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob))));
  }

  /**
   * Send another track in place of the source's for a while; null: the source's again.
   *
   * @param {MediaStreamTrack | null} track
   */
  async substitute(track) {
    const sent = track ?? this.#source?.track;
    if (sent) await this.#live?.replaceTrack(sent);
  }

  /** @param {string} name @param {File | null} file @returns {Promise<Source | null>} */
  async #open(name, file) {
    const turn = (this.#opening = {});
    const isLast = () => turn === this.#opening;
    const old = this.#source;
    try {
      return keepIf(isLast, await openSource(name, file));
    } catch (error) {
      // Phones, whose cameras face somewhere, open one at a time: the old one makes way.
      const isTaken = error instanceof SourceError && error.isBusy && isLast();
      if (isTaken && old?.track.getSettings().facingMode) {
        return await this.#openInstead(old, name, isLast);
      }
      throw error;
    }
  }

  /** @param {Source} old @param {string} name @param {() => boolean} isLast */
  async #openInstead(old, name, isLast) {
    old.close();
    try {
      return keepIf(isLast, await openSource(name));
    } catch (error) {
      const back = isLast() ? keepIf(isLast, await openSource(old.name)) : null;
      if (back) {
        await this.#live?.replaceTrack(back.track);
        this.#take(back);
      }
      throw error;
    }
  }

  #connect(/** @type {Source} */ source) {
    this.#live?.close();
    const server = this.getAttribute('server') ?? undefined;
    const controls = this.#live?.controls ?? this.#controls;
    const name = this.getAttribute('name') ?? undefined;
    const token = this.getAttribute('token') ?? '';
    const live = (this.#live = new SdxsLive(this.video, { server, controls, name, token }));
    for (const type of EVENTS) {
      live.addEventListener(type, (event) => {
        this.#emit(type, /** @type {CustomEvent} */ (event).detail);
        if (live.state === 'failed') this.#take(null);
      });
    }
    live.start(source.track);
  }

  #take(/** @type {Source | null} */ source) {
    const old = this.#source;
    this.#source = source;
    old?.close();
    if (!source) {
      this.#takeMicrophone(null);
      return old && this.#emit('source', { source: null, state: 'closed' });
    }
    const tell = (/** @type {string} */ state) => () => {
      if (source === this.#source) this.#emit('source', { source, state });
    };
    source.track.addEventListener('ended', tell('ended'));
    source.track.addEventListener('mute', tell('muted'));
    source.track.addEventListener('unmute', tell('open'));
    tell('open')();
  }

  async #takeMicrophone(/** @type {MediaStreamTrack | null} */ track) {
    if (track === this.#microphone) return;
    this.#microphone?.stop();
    this.#microphone = track;
    this.#emit('microphone', { isOn: Boolean(track) });
    await this.#live?.setMicrophone(track);
  }

  /** @param {string} type @param {object} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @param {() => boolean} isWanted @param {Source} source closed if not wanted any more */
function keepIf(isWanted, source) {
  if (isWanted()) return source;
  source.close();
  return null;
}

export { SdxsLive, VERSION };
customElements.define('sdxs-live', SdxsLiveElement);

// @ts-check
/**
 * A live translation that stays: sessions are opened again, with the same settings.
 *
 * What is promised of it, and how it is used: docs/embed.md. Every event is a CustomEvent; its `detail`:
 *   state     StateChange       each change of state, and each new sentence about it
 *   controls  Controls          what the server now applies, all of them
 *   steered   Controls          the same, before it, when somebody else has set them
 *   refused   {detail, name}    why the server did not take the control `name`
 *   stats     Stats             twice a second while live
 *   notice    {level, detail}   what the server has to say; level "info" or "warning"
 *
 *     const live = new SdxsLive(video, { controls: { prompt: 'ink-wash' } });
 *     live.start(cameraTrack);
 *
 * @typedef {'idle' | 'connecting' | 'waiting' | 'live' | 'reconnecting' | 'failed' | 'closed'} State
 * @typedef {{state: State, sentence: string, retry_in_s: number | null, status?: number}} StateChange
 *   `status`: of the answer with which the server has refused for good; 401: it asks for a token
 * @typedef {'both' | 'person' | 'background'} Region where the translation is shown
 * @typedef {{prompt: string, strength: number, seed: number, stability: number,
 *   transition_s: number, bypass: boolean, freeze: boolean, region: Region,
 *   marks: boolean}} Controls
 *   `freeze`: the last translated picture is held; `marks`: the picture's top 24 lines go past the model
 * @typedef {{state: 'live' | 'loading' | 'stalled' | 'bypass' | 'frozen',
 *   stall: 'held' | 'camera' | null, blurred: 'unchecked' | 'unfit' | null,
 *   playlist: Running | null, engine: {name: string, device: string, model: string, size: string} | null,
 *   effort: {size: string, share: string, detail: string} | null,
 *   fps_in: number | null, fps_out: number | null,
 *   dropped_in: number | null, dropped_out: number | null,
 *   age_ms: number | null, here_ms: number | null, stages_ms: Record<string, number | null> | null,
 *   recording: Kept}} ServerStats
 *   `age_ms`: from the decoder to the encoder; `here_ms`: from the last packet in to the last one out
 *   `effort`: what the model does less so that the delay stays below the server's target
 *   `blurred`: why, where the server has a safety checker
 *   `stall`: shown for want of a translation: the last picture, marked, or the camera's own
 * @typedef {{name: string, preset: string, step: number, steps: number}} Running
 * @typedef {{may_record: boolean, may_clip: boolean,
 *   files: {file: string, seconds: number, bytes: number, dropped: number}[]}} Kept
 *   what may be kept of the session, and the files that it is being recorded to
 * @typedef {{server: ServerStats | null, report: RTCStatsReport, quiet_ms: number}} Stats
 *   `report` is the W3C's; `quiet_ms`: since a new frame was last decoded
 */

import { LiveError } from './live-error.js';
import { Session } from './session.js';
import { WaitingLine, describe } from './waiting-line.js';

/** The server that this file came from. */
const HERE = new URL('.', import.meta.url).href;
const BACKOFF_S = [1, 2, 4, 8];
const NO_WEBRTC =
  'This browser has no WebRTC, or it is switched off: use a current Chromium, Firefox or Safari.';

/** Of what this file promises (docs/embed.md); another number for what breaks a page. */
export const VERSION = 1;

/** start() once, close() once. */
export class SdxsLive extends EventTarget {
  static VERSION = VERSION;

  #video;
  #server;
  #name;
  #token;
  #wanted = /** @type {Partial<Controls>} */ ({});
  #accepted = /** @type {Partial<Controls>} */ ({});
  #state = /** @type {State} */ ('idle');
  #sentence = '';
  #track = /** @type {MediaStreamTrack | null} */ (null);
  #microphone = /** @type {MediaStreamTrack | null} */ (null);
  #session = /** @type {Session | null} */ (null);
  #line = /** @type {WaitingLine | null} */ (null);
  #lifetime = new AbortController();
  #failures = 0;
  #retryTimer = 0;

  /**
   * @param {HTMLVideoElement} video where the translated picture plays
   * @param {{server?: string, controls?: Partial<Controls>, name?: string, token?: string}} [options]
   *   `server`: base URL, that of this file without it;
   *   `name`: under which others find the sessions, as in /view/{name};
   *   `token`: for a server that asks for one; who can read the page can read it
   */
  constructor(video, { server = HERE, controls = {}, name, token = '' } = {}) {
    super();
    this.#video = video;
    this.#server = new URL(server, document.baseURI);
    this.#name = name;
    this.#token = token;
    this.#wanted = { ...controls };
  }

  get state() {
    return this.#state;
  }

  /** The id of the session that is open, as in /sessions/{id}; empty without one. */
  get session() {
    return this.#session?.id ?? '';
  }

  /** What the next session will be asked for. @returns {Partial<Controls>} */
  get controls() {
    return { ...this.#wanted };
  }

  /** Open the first session. @param {MediaStreamTrack} track sent, but still the caller's */
  start(track) {
    if (this.#state !== 'idle') throw new Error(`start() in the state "${this.#state}"`);
    if (!('RTCPeerConnection' in window)) return this.#enter('failed', NO_WEBRTC);
    const { signal } = this.#lifetime;
    window.addEventListener('pagehide', () => this.close(), { signal });
    window.addEventListener('online', () => this.retry(), { signal });
    this.#track = track;
    this.#enter('connecting', 'Connecting to the server.');
    this.#run();
  }

  /** Send another track from now on, in the same session. @param {MediaStreamTrack} track */
  async replaceTrack(track) {
    this.#track = track;
    await this.#session?.replaceTrack(track);
  }

  /**
   * Send sound along, now and in later sessions; null: none. Whoever watches hears it, as late as
   * the picture. Here the video element plays it too, so leave that muted.
   *
   * @param {MediaStreamTrack | null} track still the caller's
   */
  async setMicrophone(track) {
    this.#microphone = track;
    await this.#session?.setMicrophone(track);
  }

  /**
   * Change some controls; without a session they are kept for the next one.
   *
   * @param {Partial<Controls>} set
   * @throws {Error} the server's sentence; the refused controls are what they were
   */
  async set(set) {
    Object.assign(this.#wanted, set);
    try {
      await this.#session?.set(set);
      Object.assign(this.#wanted, set); // again: news from before it may have come in between
    } catch (error) {
      for (const name of Object.keys(set)) this.#restore(/** @type {keyof Controls} */ (name));
      throw error;
    }
  }

  /** Try again now rather than at the end of the pause. */
  retry() {
    if (!this.#retryTimer) return;
    this.#enter(this.#state, this.#sentence, 0);
    this.#run();
  }

  /** End the session here and on the server. Calling it again does nothing. */
  close() {
    if (this.#state === 'closed') return;
    this.#release();
    this.#lifetime.abort();
    this.#video.srcObject = null;
    this.#enter('closed', 'Stopped.');
  }

  /** Live through one session, from offer to end; #fail decides what follows. */
  async #run(place = '') {
    this.#release();
    const session = (this.#session = new Session(this.#server, this.#video, this.#name, this.#token));
    const pass = (/** @type {Event} */ event) => this.#pass(/** @type {CustomEvent} */ (event));
    for (const type of ['steered', 'controls', 'stats', 'notice']) session.addEventListener(type, pass);
    session.addEventListener('controls', () => this.#catchUp(session), { once: true });
    try {
      const track = /** @type {MediaStreamTrack} */ (this.#track);
      await session.connect(track, this.#wanted, place);
      await session.setMicrophone(this.#microphone);
      this.#failures = 0;
      this.#enter('live', 'Live.');
      throw await session.ended;
    } catch (error) {
      if (session === this.#session) this.#fail(/** @type {Error} */ (error));
    }
  }

  /** The one error path: free everything, say why, try again unless that is of no use. */
  #fail(/** @type {Error} */ error) {
    this.#release();
    const isFinal = !(error instanceof LiveError) || error.isFinal;
    const { retryAfter_s, status, waiting } = /** @type {LiveError} */ (error);
    const name = nameRefused(error);
    if (status === 422 && name in this.#wanted) {
      this.#emit('refused', { detail: error.message, name });
      delete this.#wanted[name];
      this.#run();
    } else if (waiting) {
      this.#wait(waiting);
    } else if (isFinal) {
      this.#enter('failed', error.message, null, status);
    } else {
      const pause_s = retryAfter_s ?? BACKOFF_S[Math.min(this.#failures, BACKOFF_S.length - 1)];
      this.#failures += 1;
      this.#retryTimer = setTimeout(() => this.retry(), pause_s * 1000);
      const isWaiting = status === 503; // the server is there, and asks for patience
      this.#enter(isWaiting ? this.#state : 'reconnecting', error.message, pause_s);
    }
  }

  /** Stand in line before a full server, and come in by itself. @param {string} url */
  async #wait(url) {
    const line = (this.#line = new WaitingLine(new URL(url, this.#server), this.#token));
    line.addEventListener('standing', (event) => {
      this.#enter('waiting', describe(/** @type {CustomEvent} */ (event).detail));
    });
    try {
      const place = await line.wait();
      if (line !== this.#line) return;
      this.#line = null; // it is taken, not left
      this.#run(place);
    } catch (error) {
      if (line === this.#line) this.#fail(/** @type {Error} */ (error));
    }
  }

  #release() {
    const line = this.#line;
    this.#line = null;
    line?.leave();
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
    const session = this.#session;
    this.#session = null;
    session?.close();
  }

  #pass(/** @type {CustomEvent} */ { type, detail }) {
    if (type === 'controls') this.#accepted = detail;
    // What a stream deck has set is wanted again after the network was away: the camera, say.
    if (type === 'steered') {
      const { marks, ...others } = detail; // the marks are this page's own
      Object.assign(this.#wanted, others);
    }
    this.#emit(type, detail);
  }

  /** Send what was set since the offer; what the offer asked for, others may have changed. */
  #catchUp(/** @type {Session} */ { asked }) {
    const entries = Object.entries(this.#wanted);
    const missed = entries.filter(([name, value]) => Reflect.get(asked, name) !== value);
    if (missed.length === 0) return;
    this.set(Object.fromEntries(missed)).catch((error) => {
      this.#emit('refused', { detail: error.message, name: nameRefused(error) });
    });
  }

  /** After a refusal, want again what the server applies. */
  #restore(/** @type {keyof Controls} */ name) {
    if (name in this.#accepted) Object.assign(this.#wanted, { [name]: this.#accepted[name] });
    else delete this.#wanted[name];
  }

  /** @param {string} type @param {object} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /**
   * @param {State} state @param {string} sentence @param {number | null} retry_in_s
   * @param {number} [status]
   */
  #enter(state, sentence, retry_in_s = null, status) {
    this.#state = state;
    this.#sentence = sentence;
    this.#emit('state', { state, sentence, retry_in_s, status });
  }
}

/** Which control a refusal is about: the server's sentences about others begin with its name. */
function nameRefused(/** @type {Error} */ { message }) {
  return message.startsWith('region ') ? 'region' : 'prompt';
}

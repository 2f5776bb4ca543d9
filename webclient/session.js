// @ts-check
/**
 * One session, from offer to close: one peer connection, one control channel, one URL.
 *
 * @typedef {import('./sdxs-live.js').Controls} Controls
 * @typedef {import('./sdxs-live.js').ServerStats} ServerStats
 */

import { withToken } from './bearer.js';
import { LiveError, toError } from './live-error.js';
import { Pulse } from './measure.js';

const GATHERING_TIMEOUT_MS = 1500;
const FIRST_ADDRESS_TIMEOUT_MS = 8000; // a busy machine takes seconds to find its own
const FIRST_FRAME_TIMEOUT_MS = 15_000;
const GOODBYE_TIMEOUT_MS = 2000;
const STATS_INTERVAL_MS = 500;
const SILENCE_MS = 4000; // neither a frame nor a word for so long: the server is gone
const STANDSTILL_MS = 15_000; // words but no frame for so long: only a new session helps

const NO_ADDRESS =
  'This browser has no network address to offer. Connect to any network (Wi-Fi without ' +
  'internet is enough), or start Chromium with --allow-loopback-in-peer-connection.';
const NO_PATH =
  'Browser and server found no way to each other. A VPN or firewall may block UDP: try ' +
  'another network, or give the server a TURN relay.';

/** Events: `controls` (the first is the greeting), `steered`, `stats`, `notice`; as in SdxsLive. */
export class Session extends EventTarget {
  /** @type {Partial<Controls>} what the offer asked for */
  asked = {};
  #server;
  #video;
  #name;
  #token;
  #pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  #voice = /** @type {RTCRtpTransceiver | null} */ (null); // without a track until there is one
  #channel = this.#pc.createDataChannel('control');
  #url = /** @type {URL | null} */ (null);
  #life = new AbortController(); // aborted once, with the reason; everything hangs on it
  /** @type {Map<number, {resolve: (value?: unknown) => void, reject: (error: Error) => void}>} */
  #unanswered = new Map();
  #lastId = 0;
  #serverStats = /** @type {ServerStats | null} */ (null);
  #isGreeted = false;
  #pulse = new Pulse();

  /**
   * @param {URL} server @param {HTMLVideoElement} video plays @param {string} [name]
   * @param {string} [token] what the server asks for
   */
  constructor(server, video, name, token = '') {
    super();
    this.#server = server;
    this.#video = video;
    this.#name = name;
    this.#token = token;
    this.#pc.ontrack = ({ track }) => {
      if (track.kind === 'video') video.srcObject = new MediaStream([track]);
    };
    this.#pc.onconnectionstatechange = () => {
      if (this.#pc.connectionState === 'failed') this.close(new LiveError(NO_PATH));
    };
    this.#channel.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    this.#channel.onclose = () => this.close(new LiveError('The server has ended the session.'));
    // The server may let a session go that nobody sees.
    const tell = () => this.#tell({ hidden: document.hidden });
    this.#channel.onopen = () => document.hidden && tell();
    const { signal } = this.#life;
    document.addEventListener('visibilitychange', tell, { signal });
    signal.addEventListener('abort', () => this.#leave());
  }

  /** The end of the session. @returns {Promise<Error>} the reason */
  get ended() {
    const { signal } = this.#life;
    return new Promise((resolve) => {
      if (signal.aborted) resolve(signal.reason);
      signal.addEventListener('abort', () => resolve(signal.reason));
    });
  }

  /** What the server calls it; empty before it has an answer. */
  get id() {
    return this.#url?.pathname.split('/').at(-1) ?? '';
  }

  /** Free everything, here and on the server. Calling it again does nothing. */
  close(reason = new LiveError('Stopped.')) {
    this.#life.abort(reason);
    this.#unanswered.forEach(({ resolve }) => resolve());
    this.#unanswered.clear();
  }

  /**
   * Go from nothing to the first translated frame.
   *
   * @param {MediaStreamTrack} track
   * @param {Partial<Controls>} controls in force from the first frame
   * @param {string} [place] in the line before a full server, when its turn has come
   * @throws {LiveError} what stands in the way
   */
  async connect(track, controls, place) {
    await Promise.all([this.#checkReady(), this.#takeIceServers()]);
    await this.#offer(track);
    await this.#exchange(controls, place);
    await this.#awaitFirstFrame();
    this.#watch();
  }

  /** @param {MediaStreamTrack} track */
  async replaceTrack(track) {
    await this.#pc.getSenders()[0]?.replaceTrack(track);
  }

  /**
   * Send sound or, with null, none. It comes back into the video, which is muted unless its owner
   * wants to hear it.
   *
   * @param {MediaStreamTrack | null} track
   */
  async setMicrophone(track) {
    const back = this.#voice?.receiver.track;
    const picture = /** @type {MediaStream | null} */ (this.#video.srcObject);
    if (!back || !picture) return;
    await this.#voice?.sender.replaceTrack(track);
    if (track) picture.addTrack(back);
    else picture.removeTrack(back);
  }

  /** Ask the server for a change. @param {Partial<Controls>} set @throws {Error} its refusal */
  async set(set) {
    if (this.#channel.readyState !== 'open') return;
    const id = ++this.#lastId;
    this.#channel.send(JSON.stringify({ id, set }));
    await new Promise((resolve, reject) => this.#unanswered.set(id, { resolve, reject }));
  }

  /** @param {object} message needs no answer */
  #tell(message) {
    if (this.#channel.readyState === 'open') this.#channel.send(JSON.stringify(message));
  }

  /** @param {string} type @param {object} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {string} path @param {RequestInit} [init] */
  async #fetch(path, init) {
    const { signal } = this.#life;
    try {
      return await fetch(new URL(path, this.#server), withToken(this.#token, { signal, ...init }));
    } catch {
      signal.throwIfAborted();
      throw new LiveError(`The server at ${this.#server.host} does not answer. Is it running?`);
    }
  }

  async #checkReady() {
    const response = await this.#fetch('readyz', { cache: 'no-store' });
    if (response.status === 503) throw await toError(response);
  }

  /** STUN and TURN servers, with credentials for this session. */
  async #takeIceServers() {
    const response = await this.#fetch('api/ice-servers', { cache: 'no-store' });
    if (!response.ok) throw await toError(response);
    this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), ...(await response.json()) });
  }

  async #offer(/** @type {MediaStreamTrack} */ track) {
    const pc = this.#pc;
    const streams = [new MediaStream([track])];
    preferVp8(pc.addTransceiver(track, { streams }));
    this.#voice = pc.addTransceiver('audio', { streams });
    await pc.setLocalDescription();
    const isComplete = () => pc.iceGatheringState === 'complete';
    const hasAddress = () => pc.localDescription?.sdp.includes('\na=candidate:') ?? false;
    const hasEnough = () => hasAddress() || isComplete();
    if (!(await this.#until(pc, 'icegatheringstatechange', isComplete, GATHERING_TIMEOUT_MS))) {
      await this.#until(pc, 'icecandidate', hasEnough, FIRST_ADDRESS_TIMEOUT_MS);
    }
    if (!hasAddress()) throw new LiveError(NO_ADDRESS);
  }

  /** @param {Partial<Controls>} controls @param {string} [place] */
  async #exchange(controls, place) {
    this.asked = { ...controls };
    const toText = (/** @type {unknown} */ value) => String(value === !!value ? +value : value);
    const pairs = Object.entries(controls).map(([name, value]) => [name, toText(value)]);
    if (this.#name) pairs.push(['name', this.#name]);
    if (place) pairs.push(['place', place]);
    const response = await this.#fetch(`sessions?${new URLSearchParams(pairs)}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/sdp' },
      body: this.#pc.localDescription?.sdp,
      signal: null, // even when it comes too late, the answer says what there is to delete
    });
    if (response.status !== 201) throw await toError(response);
    this.#url = new URL(response.headers.get('Location') ?? '', response.url);
    if (this.#life.signal.aborted) await this.#sayGoodbye(this.#url);
    this.#life.signal.throwIfAborted();
    await this.#pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  }

  async #leave() {
    if (this.#url) await this.#sayGoodbye(this.#url);
    this.#pc.close(); // not before: the server would end the session itself, and then know none
  }

  async #sayGoodbye(/** @type {URL} */ url) {
    const signal = AbortSignal.timeout(GOODBYE_TIMEOUT_MS);
    const init = withToken(this.#token, { method: 'DELETE', keepalive: true, signal });
    // A server that is gone needs no goodbye.
    await fetch(url, init).catch(() => {});
  }

  async #awaitFirstFrame() {
    const video = this.#video;
    const hasFrame = () => video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
    if (await this.#until(video, 'loadeddata', hasFrame, FIRST_FRAME_TIMEOUT_MS)) return;
    const isConnected = this.#channel.readyState === 'open';
    throw new LiveError(isConnected ? 'Connected, but the server sends no picture.' : NO_PATH);
  }

  #watch() {
    const timer = setInterval(() => this.#measure(), STATS_INTERVAL_MS);
    this.#life.signal.addEventListener('abort', () => clearInterval(timer));
  }

  async #measure() {
    const report = await this.#pc.getStats();
    if (this.#life.signal.aborted) return;
    const { quiet_ms, silent_ms } = this.#pulse.read(report);
    this.#emit('stats', { server: this.#serverStats, report, quiet_ms });
    const { track } = this.#pc.getSenders()[0];
    const isSending = track?.readyState === 'live' && !track.muted;
    if (silent_ms > SILENCE_MS) {
      this.close(new LiveError('The server has gone silent.'));
    } else if (isSending && quiet_ms > STANDSTILL_MS) {
      this.close(new LiveError('The translated picture stands still.'));
    }
  }

  /** @param {any} message what the server says on the control channel */
  #hear(message) {
    this.#pulse.hear();
    const request = this.#unanswered.get(message.id);
    this.#unanswered.delete(message.id);
    if (message.type === 'stats') {
      this.#serverStats = message;
    } else if (message.type === 'controls') {
      if (this.#isGreeted && !request) this.#emit('steered', message.controls);
      this.#isGreeted = true;
      this.#emit('controls', message.controls);
      request?.resolve();
    } else if (message.type === 'farewell') {
      this.close(new LiveError(message.detail, { isFinal: true }));
    } else if (message.type === 'error' && request) {
      request.reject(new Error(message.detail));
    } else {
      this.#emit('notice', { level: message.level ?? 'warning', detail: message.detail });
    }
  }

  /**
   * Wait for an event after which `condition` holds; false when the time is over.
   *
   * @param {EventTarget} target @param {string} type
   * @param {() => boolean} condition @param {number} timeout_ms
   */
  #until(target, type, condition, timeout_ms) {
    const { signal } = this.#life;
    return new Promise((resolve, reject) => {
      const check = () => condition() && resolve(true);
      target.addEventListener(type, check, { signal });
      signal.addEventListener('abort', () => reject(signal.reason));
      setTimeout(() => resolve(false), timeout_ms);
      check();
    });
  }
}

/** VP8 first: it decodes a little sooner than H264 and has no colour-range trap. */
function preferVp8(/** @type {RTCRtpTransceiver} */ transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities('video')?.codecs ?? [];
  const isVp8 = (/** @type {{mimeType: string}} */ codec) => codec.mimeType === 'video/VP8';
  codecs.sort((a, b) => Number(isVp8(b)) - Number(isVp8(a)));
  transceiver.setCodecPreferences?.(codecs);
}

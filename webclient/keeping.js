// @ts-check
/**
 * What the server keeps of a session: recordings, clips, and the words that say so.
 *
 * @typedef {import('./sdxs-live.js').Kept} Kept
 */

import { access } from './access.js';
import { download } from './download.js';

const NOT_LIVE = 'There is no session to record: press Start first.';
const GOES_ON = 'The connection was lost for a while: recording goes on, into another file.';
const STALE_MS = 1200; // for so long statistics may be of before the server's answer
const NO_ANSWER = 'The server does not answer.';
const NO_FOLDER = 'This server records nothing: it was started without --record-dir.';
const NO_CLIPS = 'This server keeps no clips: it was started without --clips.';
const NO_CLIP = 'There is no session to make a clip of: press Start first.';

/** The button and the red sign of a recording, the button of a clip. */
export class Keeping {
  #root;
  #live;
  #tell;
  #isRecording = false;
  #isWanted = false; // also after the session was lost
  #settled_ms = 0;

  /**
   * @param {Document} root holds the ids of index.html
   * @param {import('./sdxs-live-element.js').SdxsLiveElement} live
   * @param {(sentence: string) => void} tell
   */
  constructor(root, live, tell) {
    this.#root = root;
    this.#live = live;
    this.#tell = tell;
    this.#learn();
  }

  /** Record, or end the recording, and say what came of it. */
  async toggleRecording() {
    if (this.#find('record').hidden) return this.#tell(NO_FOLDER);
    if (this.#live.state !== 'live') return this.#tell(NOT_LIVE);
    if (!this.#isRecording) return this.#start();
    this.#isWanted = false;
    const response = await this.#ask('recording', { method: 'DELETE' });
    if (!response) return;
    this.#settled_ms = performance.now() + STALE_MS;
    const { files, ...kept } = /** @type {Kept} */ (await response.json());
    this.#show({ ...kept, files: [] });
    this.#tell(`Recorded on the server: ${files.map(describeFile).join('; ')}.`);
  }

  async #start() {
    const camera = /** @type {HTMLInputElement} */ (this.#find('record-camera')).checked;
    const body = JSON.stringify({ camera });
    const response = await this.#ask('recording', { method: 'POST', body });
    this.#settled_ms = performance.now() + STALE_MS;
    this.#isWanted = response !== null;
    if (response) this.#show(await response.json());
  }

  /** Record on in a session that takes the place of a lost one. @param {string} state */
  follow(state) {
    if (state === 'live' && this.#isWanted) {
      this.#start();
      this.#tell(GOES_ON);
    }
    if (state === 'closed' || state === 'failed') this.#isWanted = false;
    if (state !== 'live') this.#show(null);
  }

  /** Have the last half minute, as a download. */
  async saveClip() {
    if (this.#find('clip').hidden) return this.#tell(NO_CLIPS);
    if (this.#live.state !== 'live') return this.#tell(NO_CLIP);
    const response = await this.#ask('actions/clip', { method: 'POST' });
    if (!response) return;
    const disposition = response.headers.get('Content-Disposition') ?? '';
    const [, name = 'clip.mp4'] = disposition.match(/filename="([^"]+)"/) ?? [];
    download(await response.blob(), name);
    this.#tell('The last half minute is saved among your downloads.');
  }

  /** Show what the statistics say. @param {Kept | null} kept */
  update(kept) {
    if (!kept || performance.now() < this.#settled_ms) return;
    if (kept.files.length === 0) this.#isWanted = false; // somebody else, or the disk, has ended it
    this.#show(kept);
  }

  /** @param {Kept | null} kept null: there is no session */
  #show(kept) {
    if (kept) this.#allow(kept);
    const files = kept?.files ?? [];
    this.#isRecording = files.length > 0;
    const sign = this.#find('recording');
    sign.hidden = !this.#isRecording;
    this.#find('record').ariaPressed = String(this.#isRecording);
    if (!this.#isRecording) return;
    const seconds = Math.max(...files.map((file) => file.seconds));
    const dropped = files.reduce((sum, file) => sum + file.dropped, 0);
    this.#find('recording-time').textContent = toClock(seconds);
    this.#find('recording-dropped').textContent = dropped ? `${dropped} dropped` : '';
    sign.title = `Recorded on the server: ${files.map(describeFile).join('; ')}`;
  }

  /** Ask what the server may keep, and say it before there is a session. */
  async #learn() {
    const response = await access.ask('api/keeping', { cache: 'no-store' }).catch(() => null);
    if (response?.ok) this.#allow(await response.json());
  }

  /** @param {{may_record: boolean, may_clip: boolean}} kept */
  #allow({ may_record, may_clip }) {
    this.#find('record').hidden = !may_record;
    this.#find('record-camera-choice').hidden = !may_record;
    this.#find('clip').hidden = !may_clip;
    const words = toWords(may_record, may_clip);
    const promise = this.#find('stored');
    if (promise.textContent !== words) promise.textContent = words;
  }

  /** @param {string} path @param {RequestInit} init @returns {Promise<Response | null>} */
  async #ask(path, init) {
    const url = `sessions/${encodeURIComponent(this.#live.session)}/${path}`;
    const response = await access.ask(url, init).catch(() => null);
    if (response?.ok) return response;
    const problem = await response?.json().catch(() => null);
    this.#tell(problem?.detail ?? NO_ANSWER);
    return null;
  }

  #find(/** @type {string} */ id) {
    return /** @type {HTMLElement} */ (this.#root.getElementById(id));
  }
}

/** What is kept now, in a few words. @param {Kept | null | undefined} kept */
export function describeKept(kept) {
  if (!kept) return '–';
  if (kept.files.length > 0) return `on the server’s disk: ${kept.files.map(describeFile).join('; ')}`;
  return kept.may_clip ? 'the last 30 s, in the server’s memory; nothing on a disk' : 'nothing';
}

function describeFile(/** @type {Kept['files'][0]} */ { file, seconds, bytes, dropped }) {
  const lost = dropped ? `, ${dropped} pictures dropped` : '';
  return `${file}, ${seconds.toFixed()} s, ${(bytes / 1e6).toFixed(1)} MB${lost}`;
}

function toWords(mayRecord = false, mayClip = false) {
  const unless = mayRecord ? ' unless it is recorded, which a red sign shows' : '';
  if (!mayClip) return `nothing is stored${unless}`;
  return `the last 30 seconds stay in its memory for clips, nothing is written to a disk${unless}`;
}

function toClock(seconds = 0) {
  const whole = Math.floor(seconds);
  const pad = (/** @type {number} */ number) => String(number).padStart(2, '0');
  const minutes = `${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}`;
  return whole < 3600 ? minutes : `${Math.floor(whole / 3600)}:${minutes}`;
}

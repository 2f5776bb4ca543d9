// @ts-check
/**
 * What is going on: state, fps, delay, drops; details on request; what is wrong.
 *
 * @typedef {import('./sdxs-live.js').Stats} Stats
 * @typedef {import('./sdxs-live.js').ServerStats} ServerStats
 * @typedef {import('./measure.js').Stage} Stage
 * @typedef {import('./measure.js').Link} Link
 */

import { describeKept } from './keeping.js';
import { FrameCounter, LinkMeter, Rate, estimateStages } from './measure.js';

const TOAST_MS = 4000;
const UNREAD_MS = 1500;
const COUNT_MS = 250;
const STANDING_MS = 1500; // a picture on screen for longer gets visibly older
const WORDS = {
  idle: 'Ready',
  connecting: 'Connecting',
  waiting: 'In line',
  live: 'Live',
  reconnecting: 'Reconnecting',
  failed: 'Stopped by an error',
  closed: 'Stopped',
};
/** The server's own word, where it says more than "live". */
const ENGINE_WORDS = {
  live: 'Live',
  loading: 'Model loading',
  stalled: 'Model stalled',
  bypass: 'Camera',
  frozen: 'Frozen',
};

/** The figures. */
export class Hud {
  #root;
  #frames;
  #meter = new LinkMeter();
  #shown = new Rate();
  #dropped = new Rate();
  /** How old the picture on screen is, estimated; null while the server says nothing. */
  delay_ms = /** @type {number | null} */ (null);

  /** @param {Document} root holds the ids of index.html @param {HTMLVideoElement} video */
  constructor(root, video) {
    this.#root = root;
    this.#frames = new FrameCounter(video);
  }

  /**
   * @param {import('./sdxs-live.js').State} state @param {ServerStats | null} [server]
   * @param {boolean} [isQuiet] no picture comes: what the server said last may be old
   */
  updateState(state, server, isQuiet) {
    const told = isQuiet ? 'No picture' : server && ENGINE_WORDS[server.state];
    const word = state === 'live' && told ? told : WORDS[state];
    this.#write('hud-state', word);
    if (state === 'live') return;
    for (const id of ['hud-fps', 'hud-delay', 'hud-drops']) this.#write(id, '–');
    this.#showEffort(null);
  }

  updateStats(/** @type {Stats} */ { server, report, quiet_ms }) {
    const link = this.#meter.read(report);
    const standing_ms = quiet_ms > STANDING_MS ? quiet_ms : 0;
    const stages = estimateStages(link, server, this.#frames.inBrowser_ms, standing_ms);
    const delay_ms = stages.reduce((sum, { ms }) => sum + ms, 0);
    const drops = this.#dropped.add((server?.dropped_in ?? 0) + (server?.dropped_out ?? 0));
    this.#write('hud-fps', toFigure(this.#shown.add(this.#frames.total)));
    this.delay_ms = server ? delay_ms : null;
    this.#write('hud-delay', toFigure(this.delay_ms));
    this.#write('hud-drops', toFigure(drops));
    this.#showEffort(server?.effort ?? null);
    this.#showStages(stages, delay_ms);
    this.#showFacts(link, server);
  }

  /** What the model does less to keep up. @param {ServerStats['effort']} effort */
  #showEffort(effort) {
    const badge = this.#find('hud-effort');
    badge.hidden = !effort;
    if (!effort) return;
    const share = effort.share === '1/1' ? '' : `, ${effort.share.replace('/', ' of ')} frames`;
    this.#write('hud-size', effort.size.replace('x', '×') + share);
    badge.title = effort.detail;
  }

  /** @param {Stage[]} stages @param {number} delay_ms */
  #showStages(stages, delay_ms) {
    let before_ms = 0;
    const rows = stages.map(({ name, ms }) => {
      const row = document.createElement('li');
      row.append(...['stage-name', 'stage-bar', 'stage-ms'].map(toSpan));
      row.children[0].textContent = name;
      row.children[2].textContent = `${ms.toFixed(1)} ms`;
      row.style.setProperty('--from', `${(100 * before_ms) / (delay_ms || 1)}%`);
      row.style.setProperty('--share', `${(100 * ms) / (delay_ms || 1)}%`);
      before_ms += ms;
      return row;
    });
    this.#find('stages').replaceChildren(...rows);
  }

  /** @param {Link} link @param {ServerStats | null} server */
  #showFacts(link, server) {
    const engine = server?.engine;
    const kbps = (/** @type {number} */ bps) => `${(bps / 1000).toFixed()} kb/s`;
    const facts = {
      Model: engine ? `${engine.model}, ${engine.size}` : '–',
      'Delay target': server?.effort?.detail ?? 'The model does all it can.',
      Engine: engine ? `${engine.name} on ${engine.device}` : '–',
      'Camera sent': `${link.sent}, ${kbps(link.up_bps)}`,
      'Picture received': `${link.received} ${link.codec}, ${kbps(link.down_bps)}`,
      'Server in → out': `${toFigure(server?.fps_in)} → ${toFigure(server?.fps_out)} fps`,
      Stored: describeKept(server?.recording),
      'Dropped in, out': `${server?.dropped_in ?? '–'}, ${server?.dropped_out ?? '–'} frames`,
    };
    const pairs = Object.entries(facts).flatMap(([term, text]) => {
      const [dt, dd] = [document.createElement('dt'), document.createElement('dd')];
      dt.textContent = term;
      dd.textContent = text;
      return [dt, dd];
    });
    this.#find('facts').replaceChildren(...pairs);
  }

  #find(/** @type {string} */ id) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(`#${id}`));
  }

  /** @param {string} id @param {string} text */
  #write(id, text) {
    const element = this.#find(id);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** Says what is wrong and what to do, one message at a time; its kind says when it is over. */
export class Messages {
  #root;
  #kind = '';
  #toastTimer = 0;
  #toasted_ms = 0;
  #countdown = 0;

  /** @param {Document} root holds the ids of index.html */
  constructor(root) {
    this.#root = root;
  }

  /** @param {string} kind @param {string} sentence @param {string} [action] on a button */
  say(kind, sentence, action = '', run = () => {}) {
    clearTimeout(this.#countdown);
    this.#kind = kind;
    const text = this.#find('message-text');
    if (text.textContent !== sentence) text.textContent = sentence; // else it is read out again
    const button = this.#find('message-action');
    Object.assign(button, { textContent: action, hidden: !action, onclick: run });
    this.#find('message').hidden = false;
  }

  /**
   * Say why there is a pause, and count it down on a button that ends it.
   *
   * @param {string} kind @param {string} sentence
   * @param {number | null} pause_s null: nothing to wait for @param {() => void} retry
   */
  sayPause(kind, sentence, pause_s, retry) {
    const end_ms = performance.now() + (pause_s ?? 0) * 1000;
    const count = () => {
      const left_s = Math.ceil((end_ms - performance.now()) / 1000);
      const action = left_s > 0 ? `Try now (${left_s} s)` : 'Trying…';
      this.say(kind, sentence, pause_s === null ? '' : action, retry);
      if (left_s > 0) this.#countdown = setTimeout(count, COUNT_MS);
    };
    count();
  }

  /** Take the message back if it is of one of these kinds. @param {string[]} kinds */
  unsay(...kinds) {
    if (!kinds.includes(this.#kind)) return;
    clearTimeout(this.#countdown);
    this.#find('message').hidden = true;
  }

  /** Say something for a few seconds; what was said a moment ago is not lost over it. */
  toast(sentence = '') {
    const toast = this.#find('toast');
    const now_ms = performance.now();
    const isRead = toast.hidden || now_ms - this.#toasted_ms > UNREAD_MS;
    const before = isRead || toast.textContent === sentence ? '' : (toast.textContent ?? '');
    toast.textContent = before.replace(/[.]?$/, before && '. ') + sentence;
    toast.hidden = false;
    this.#toasted_ms = now_ms;
    clearTimeout(this.#toastTimer);
    this.#toastTimer = setTimeout(() => (toast.hidden = true), TOAST_MS);
  }

  #find(/** @type {string} */ id) {
    return /** @type {HTMLElement} */ (this.#root.getElementById(id));
  }
}

/** @param {number | null | undefined} value */
function toFigure(value) {
  return value === null || value === undefined ? '–' : value.toFixed();
}

function toSpan(/** @type {string} */ className) {
  return Object.assign(document.createElement('span'), { className });
}

// @ts-check
/**
 * What is going on: state, fps, delay, drops; details on request.
 *
 * @typedef {import('./sdxs-live.js').Stats} Stats
 * @typedef {import('./sdxs-live.js').ServerStats} ServerStats
 * @typedef {import('./measure.js').Stage} Stage
 * @typedef {import('./measure.js').Link} Link
 */

import { describeKept } from './keeping.js';
import { FrameCounter, LinkMeter, Rate, estimateStages } from './measure.js';

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
    // A picture that is held on purpose gets older, but nothing is late.
    this.delay_ms = server && server.state !== 'frozen' ? delay_ms : null;
    this.#write('hud-delay', toFigure(this.delay_ms));
    this.#write('hud-drops', toFigure(drops));
    this.#showEffort(server?.effort ?? null);
    this.#showStages(server?.state === 'frozen' ? [] : stages, delay_ms);
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
    return /** @type {HTMLElement} */ (this.#root.getElementById(id));
  }

  /** @param {string} id @param {string} text */
  #write(id, text) {
    const element = this.#find(id);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** @param {number | null | undefined} value */
function toFigure(value) {
  return value === null || value === undefined ? '–' : value.toFixed();
}

function toSpan(/** @type {string} */ className) {
  return Object.assign(document.createElement('span'), { className });
}

// @ts-check
/**
 * The delay from camera to screen, measured: both ends are this page, so one clock stamps both.
 *
 * @typedef {import('./sdxs-live-element.js').SdxsLiveElement} SdxsLiveElement
 * @typedef {{median_ms: number, p95_ms: number, frames: number, estimate_ms: number | null}}
 *   Measurement `estimate_ms`: what was estimated in the same time
 */

import { MarkReader, MarkedCamera } from './marks.js';
import { pause } from './pause.js';

const SETTLE_MS = 700; // a new track begins slowly
const DURATION_MS = 3000;
const FEWEST_FRAMES = 10;

const NO_PICTURE = 'There is no live picture to measure: press Start first.';
const FROZEN = 'The picture is frozen: let it go (H) to measure.';
const NO_CALLBACK = 'This browser does not tell when it shows a frame: use a current one.';
const TOO_FEW = 'Too few frames came back to measure: keep this page in sight and try again.';

/** Measures on request; one at a time. */
export class DelayMeter {
  /** Whether the address asks for it (`?measure=1`), until it has been done. */
  isWished = new URLSearchParams(location.search).get('measure') === '1';
  #live;
  #camera;
  #estimate;
  #isFrozen;
  #isAtWork = false;

  /**
   * @param {SdxsLiveElement} live @param {HTMLVideoElement} camera plays what `live` translates
   * @param {() => number | null} estimate the delay as estimated, in ms
   * @param {() => boolean} isFrozen whether the picture is held on purpose
   */
  constructor(live, camera, estimate, isFrozen) {
    this.#live = live;
    this.#camera = camera;
    this.#estimate = estimate;
    this.#isFrozen = isFrozen;
  }

  /** Measure, and write the outcome, or why there is none. @param {HTMLElement} output */
  async show(output) {
    if (this.#isAtWork) return;
    this.#isAtWork = true;
    this.isWished = false;
    output.textContent = 'Measuring…';
    try {
      output.textContent = toSentence(await this.#measure());
    } catch (error) {
      output.textContent = /** @type {Error} */ (error).message;
    }
    this.#isAtWork = false;
  }

  /** @returns {Promise<Measurement>} @throws {Error} a sentence */
  async #measure() {
    const live = this.#live;
    if (live.state !== 'live' || !live.source) throw new Error(NO_PICTURE);
    if (this.#isFrozen()) throw new Error(FROZEN);
    if (!('requestVideoFrameCallback' in live.video)) throw new Error(NO_CALLBACK);
    const marked = new MarkedCamera(this.#camera, live.source.track.getSettings().frameRate);
    const reader = new MarkReader(live.video, marked);
    const estimates_ms = /** @type {number[]} */ ([]);
    const note = () => estimates_ms.push(this.#estimate() ?? NaN);
    try {
      await live.set({ marks: true });
      await live.substitute(marked.track);
      await pause(SETTLE_MS);
      reader.ages_ms = [];
      live.addEventListener('stats', note);
      await pause(DURATION_MS - SETTLE_MS);
    } finally {
      live.removeEventListener('stats', note);
      marked.stop();
      reader.stop();
      await live.substitute(null);
      await live.set({ marks: false });
    }
    const { ages_ms } = reader;
    if (ages_ms.length < FEWEST_FRAMES) throw new Error(TOO_FEW);
    const known_ms = estimates_ms.filter(Number.isFinite);
    return {
      median_ms: quantile(ages_ms, 0.5),
      p95_ms: quantile(ages_ms, 0.95),
      frames: ages_ms.length,
      estimate_ms: known_ms.length > 0 ? quantile(known_ms, 0.5) : null,
    };
  }
}

/** @param {number[]} values at least one */
function quantile(values, share = 0.5) {
  return [...values].sort((a, b) => a - b)[Math.ceil(share * values.length) - 1];
}

function toSentence(/** @type {Measurement} */ { median_ms, p95_ms, frames, estimate_ms }) {
  const figures = `median ${median_ms.toFixed()} ms, p95 ${p95_ms.toFixed()} ms`;
  const beside = estimate_ms === null ? '' : `, estimated ${estimate_ms.toFixed()} ms`;
  return `measured: ${figures} (${frames} frames)${beside}`;
}

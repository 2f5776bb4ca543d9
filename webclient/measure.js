// @ts-check
/**
 * Figures from what the browser and the server count.
 *
 * @typedef {import('./sdxs-live.js').ServerStats} ServerStats
 * @typedef {Record<string, any>} Entry of a report of the W3C's
 * @typedef {{name: string, ms: number}} Stage
 * @typedef {{send_ms: number, network_ms: number, receive_ms: number, up_bps: number,
 *   down_bps: number, sent: string, received: string, codec: string}} Link
 */

const RATE_WINDOW_MS = 2000;
const SLEPT_MS = 3000; // a reading so late means that the tab or the machine slept
const SMOOTHING = 0.1; // a new value's share: about the last ten frames count

/** How fast a total grows, per second over the last two seconds. */
export class Rate {
  /** @type {{at_ms: number, total: number}[]} */
  #samples = [];

  /** @param {number} total @returns {number | null} null until there are two samples */
  add(total, at_ms = performance.now()) {
    if (total < (this.#samples.at(-1)?.total ?? 0)) this.#samples = []; // a new session
    this.#samples.push({ at_ms, total });
    while (at_ms - this.#samples[0].at_ms > RATE_WINDOW_MS) this.#samples.shift();
    const [first] = this.#samples;
    return at_ms > first.at_ms ? ((total - first.total) * 1000) / (at_ms - first.at_ms) : null;
  }
}

/** Counts the frames that a video element really shows. */
export class FrameCounter {
  #video;
  #presented = 0;
  /** Smoothed time from a frame's last packet to the screen; null where a browser does not say. */
  inBrowser_ms = /** @type {number | null} */ (null);

  constructor(/** @type {HTMLVideoElement} */ video) {
    this.#video = video;
    if ('requestVideoFrameCallback' in video) this.#next();
  }

  get total() {
    return this.#presented || this.#video.getVideoPlaybackQuality().totalVideoFrames;
  }

  #next() {
    this.#video.requestVideoFrameCallback((now_ms, { presentedFrames, receiveTime }) => {
      this.#presented = presentedFrames;
      if (receiveTime) {
        const age_ms = Math.max(0, now_ms - receiveTime);
        const before_ms = this.inBrowser_ms ?? age_ms;
        this.inBrowser_ms = before_ms + SMOOTHING * (age_ms - before_ms);
      }
      this.#next();
    });
  }
}

/** How long ago the other side gave a sign of life; sleep of our own does not count. */
export class Pulse {
  #decoded = 0;
  #decodedAt_ms = 0;
  #heardAt_ms = 0;
  #readAt_ms = 0;

  /** Note a word from the server. */
  hear() {
    this.#heardAt_ms = performance.now();
  }

  /**
   * @param {RTCStatsReport} report
   * @returns since a new frame was decoded, and since a new frame or a word, in ms
   */
  read(report) {
    const now_ms = performance.now();
    const decoded = findVideo(report, 'inbound-rtp').framesDecoded ?? 0;
    const hasSlept = document.hidden || now_ms - this.#readAt_ms > SLEPT_MS;
    if (hasSlept) this.#heardAt_ms = now_ms;
    if (hasSlept || decoded > this.#decoded) this.#decodedAt_ms = now_ms;
    this.#decoded = decoded;
    this.#readAt_ms = now_ms;
    const quiet_ms = now_ms - this.#decodedAt_ms;
    return { quiet_ms, silent_ms: Math.min(quiet_ms, now_ms - this.#heardAt_ms) };
  }
}

/** Turns the W3C's running totals into figures of the time since the last report. */
export class LinkMeter {
  #last = { out: /** @type {Entry} */ ({}), inb: /** @type {Entry} */ ({}) };

  /** @param {RTCStatsReport} report @returns {Link} */
  read(report) {
    const out = findVideo(report, 'outbound-rtp');
    const inb = findVideo(report, 'inbound-rtp');
    const now = { out, inb };
    // A new session counts from 0 again.
    const change = (/** @type {'out' | 'inb'} */ way, name = '') =>
      Math.max(0, (now[way][name] ?? 0) - (this.#last[way][name] ?? 0));
    const mean_ms = (/** @type {'out' | 'inb'} */ way, total = '', count = '') =>
      (1000 * change(way, total)) / Math.max(1, change(way, count));
    const bps = (/** @type {'out' | 'inb'} */ way, name = '') =>
      (8000 * change(way, name)) / Math.max(1, change(way, 'timestamp'));
    const link = {
      send_ms:
        mean_ms('out', 'totalEncodeTime', 'framesEncoded') +
        mean_ms('out', 'totalPacketSendDelay', 'packetsSent'),
      network_ms: 1000 * (findPair(report)?.currentRoundTripTime ?? 0),
      receive_ms:
        mean_ms('inb', 'jitterBufferDelay', 'jitterBufferEmittedCount') +
        mean_ms('inb', 'totalDecodeTime', 'framesDecoded'),
      up_bps: bps('out', 'bytesSent'),
      down_bps: bps('inb', 'bytesReceived'),
      sent: toSize(out),
      received: toSize(inb),
      codec: (report.get(inb.codecId)?.mimeType ?? '').replace('video/', ''),
    };
    this.#last = now;
    return link;
  }
}

/**
 * The parts of the delay from camera to screen, as far as anybody knows them.
 *
 * @param {Link} link @param {ServerStats | null} server @param {number | null} inBrowser_ms
 * @returns {Stage[]}
 */
export function estimateStages(link, server, inBrowser_ms) {
  const { decode, wait, translate, mask, encode } = server?.stages_ms ?? {};
  // The age is from decoder to encoder.
  const between_ms = (server?.age_ms ?? 0) - (translate ?? 0) - (mask ?? 0);
  const stages = [
    { name: 'send', ms: link.send_ms },
    { name: 'network', ms: link.network_ms },
    { name: 'decode', ms: decode },
    { name: 'wait', ms: Math.max(wait ?? 0, between_ms) },
    { name: 'translate', ms: translate },
    ...(mask ? [{ name: 'mask', ms: mask }] : []),
    { name: 'encode', ms: encode },
    { name: 'receive', ms: inBrowser_ms ?? link.receive_ms },
  ];
  return stages.map(({ name, ms }) => ({ name, ms: ms ?? 0 }));
}

/** @param {RTCStatsReport} report @param {string} type @returns {Entry} empty if there is none */
function findVideo(report, type) {
  return toList(report).find((entry) => entry.type === type && entry.kind === 'video') ?? {};
}

/** @returns {Entry | undefined} the pair of addresses in use */
function findPair(/** @type {RTCStatsReport} */ report) {
  const pairs = toList(report).filter(({ type }) => type === 'candidate-pair');
  return pairs.find(({ nominated, selected }) => nominated || selected);
}

/** @returns {Entry[]} */
function toList(/** @type {RTCStatsReport} */ report) {
  return [.../** @type {any} */ (report).values()];
}

/** @param {{frameWidth?: number, frameHeight?: number}} entry */
function toSize({ frameWidth, frameHeight }) {
  return frameWidth ? `${frameWidth}×${frameHeight}` : '–';
}

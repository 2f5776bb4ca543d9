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
const FRAMES = 60; // of which a median is taken, as the server does
const REPORTS = 20; // ten seconds: a browser sends a check each few seconds, and one may be slow

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

/** The newest values, a bounded number. */
class Recent {
  #values = /** @type {number[]} */ ([]);
  #room;

  constructor(room = FRAMES) {
    this.#room = room;
  }

  add(value = 0) {
    this.#values.push(value);
    if (this.#values.length > this.#room) this.#values.shift();
  }

  /** @returns {number | null} null if there are none */
  get median() {
    const sorted = [...this.#values].sort((a, b) => a - b);
    return sorted[(sorted.length - 1) >> 1] ?? null;
  }
}

/** Counts the frames that a video element really shows. */
export class FrameCounter {
  #video;
  #presented = 0;
  #inBrowser_ms = new Recent(FRAMES);

  constructor(/** @type {HTMLVideoElement} */ video) {
    this.#video = video;
    if ('requestVideoFrameCallback' in video) this.#next();
  }

  get total() {
    return this.#presented || this.#video.getVideoPlaybackQuality().totalVideoFrames;
  }

  /** Median time from a frame's last packet to the screen; null where a browser does not say. */
  get inBrowser_ms() {
    return this.#inBrowser_ms.median;
  }

  #next() {
    this.#video.requestVideoFrameCallback((_, { presentedFrames, receiveTime }) => {
      this.#presented = presentedFrames;
      // Not the callback's own time: a busy page is called later than that.
      if (receiveTime) this.#inBrowser_ms.add(Math.max(0, performance.now() - receiveTime));
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
  #roundTrips_ms = new Recent(REPORTS);

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
    const roundTrip_s = findPair(report)?.currentRoundTripTime;
    if (roundTrip_s !== undefined) this.#roundTrips_ms.add(1000 * roundTrip_s);
    const link = {
      send_ms:
        mean_ms('out', 'totalEncodeTime', 'framesEncoded') +
        mean_ms('out', 'totalPacketSendDelay', 'packetsSent'),
      network_ms: this.#roundTrips_ms.median ?? 0,
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
 * @param {number} standing_ms for how long the picture on screen has stood still; 0: it moves
 * @returns {Stage[]}
 */
export function estimateStages(link, server, inBrowser_ms, standing_ms = 0) {
  const { decode, wait, translate, mask, encode } = server?.stages_ms ?? {};
  // What no other stage of the server's has: a place in its queues, and its own loop.
  const known_ms = [decode, translate, mask, encode].reduce((sum, ms) => (sum ?? 0) + (ms ?? 0), 0);
  const rest_ms = (server?.here_ms ?? 0) - (known_ms ?? 0);
  const stages = [
    { name: 'send', ms: link.send_ms },
    { name: 'network', ms: link.network_ms },
    { name: 'decode', ms: decode },
    { name: 'wait', ms: Math.max(wait ?? 0, rest_ms) },
    { name: 'translate', ms: translate },
    ...(mask ? [{ name: 'mask', ms: mask }] : []),
    { name: 'encode', ms: encode },
    { name: 'receive', ms: inBrowser_ms ?? link.receive_ms },
    ...(standing_ms ? [{ name: 'standing', ms: standing_ms }] : []),
  ];
  return stages.map(({ name, ms }) => ({ name, ms: ms ?? 0 }));
}

/** @param {RTCStatsReport} report @param {string} type @returns {Entry} empty if there is none */
function findVideo(report, type) {
  return toList(report).find((entry) => entry.type === type && entry.kind === 'video') ?? {};
}

/**
 * @returns {Entry | undefined} the pair of addresses in use; several may be nominated, and of
 *   those that are not in use the round trip stays what it was once
 */
function findPair(/** @type {RTCStatsReport} */ report) {
  const entries = toList(report);
  const chosen = entries.find(({ type }) => type === 'transport')?.selectedCandidatePairId;
  if (chosen) return report.get(chosen);
  const pairs = entries.filter(({ type }) => type === 'candidate-pair');
  return pairs.find(({ selected }) => selected) ?? pairs.find(({ nominated }) => nominated);
}

/** @returns {Entry[]} */
function toList(/** @type {RTCStatsReport} */ report) {
  return [.../** @type {any} */ (report).values()];
}

/** @param {{frameWidth?: number, frameHeight?: number}} entry */
function toSize({ frameWidth, frameHeight }) {
  return frameWidth ? `${frameWidth}×${frameHeight}` : '–';
}

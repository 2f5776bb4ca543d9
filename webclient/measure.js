// @ts-check
/**
 * Figures from what the browser and the server count.
 *
 * @typedef {import('./sdxs-live.js').ServerStats} ServerStats
 * @typedef {{name: string, ms: number}} Stage
 * @typedef {{send_ms: number, network_ms: number, receive_ms: number, up_bps: number,
 *   down_bps: number, sent: string, received: string, codec: string}} Link
 */

const RATE_WINDOW_MS = 2000;
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

/** Turns the W3C's running totals into figures of the time since the last report. */
export class LinkMeter {
  #last = /** @type {Record<string, any>} */ ({});

  /** @param {RTCStatsReport} report @returns {Link} */
  read(report) {
    const now = /** @type {Record<string, any>} */ ({});
    report.forEach((entry) => {
      if (entry.kind === 'video') now[entry.type] = entry;
      if (entry.type === 'candidate-pair' && (entry.nominated || entry.selected)) now.pair = entry;
    });
    const out = now['outbound-rtp'] ?? {};
    const inb = now['inbound-rtp'] ?? {};
    const change = (/** @type {string} */ type, /** @type {string} */ name) =>
      (now[type]?.[name] ?? 0) - (this.#last[type]?.[name] ?? 0);
    const mean_ms = (/** @type {string} */ type, total = '', count = '') =>
      (1000 * change(type, total)) / Math.max(1, change(type, count));
    const bps = (/** @type {string} */ type, name = '') =>
      (8000 * change(type, name)) / Math.max(1, change(type, 'timestamp'));
    const link = {
      send_ms:
        mean_ms('outbound-rtp', 'totalEncodeTime', 'framesEncoded') +
        mean_ms('outbound-rtp', 'totalPacketSendDelay', 'packetsSent'),
      network_ms: 1000 * (now.pair?.currentRoundTripTime ?? 0),
      receive_ms:
        mean_ms('inbound-rtp', 'jitterBufferDelay', 'jitterBufferEmittedCount') +
        mean_ms('inbound-rtp', 'totalDecodeTime', 'framesDecoded'),
      up_bps: bps('outbound-rtp', 'bytesSent'),
      down_bps: bps('inbound-rtp', 'bytesReceived'),
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
  const { decode, wait, translate, encode } = server?.stages_ms ?? {};
  const between_ms = (server?.age_ms ?? 0) - (translate ?? 0); // age: from decoder to encoder
  const stages = [
    { name: 'send', ms: link.send_ms },
    { name: 'network', ms: link.network_ms },
    { name: 'decode', ms: decode },
    { name: 'wait', ms: Math.max(wait ?? 0, between_ms) },
    { name: 'translate', ms: translate },
    { name: 'encode', ms: encode },
    { name: 'receive', ms: inBrowser_ms ?? link.receive_ms },
  ];
  return stages.map(({ name, ms }) => ({ name, ms: ms ?? 0 }));
}

/** @param {{frameWidth?: number, frameHeight?: number}} entry */
function toSize({ frameWidth, frameHeight }) {
  return frameWidth ? `${frameWidth}×${frameHeight}` : '–';
}

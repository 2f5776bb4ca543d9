// @ts-check
/**
 * Measures glass to glass: a number drawn into a canvas, sent, echoed, shown, read again.
 *
 * Both ends are this page, so that one clock stamps both. Settings come in the address:
 * `endpoint`, `codec`, `width`, `height`, `rate` (frames a second), `seconds`. The result is
 * posted to the server, which is `run.py bench`.
 */

import { pause } from './pause.js';

const BITS = 16;
const BIT_PX = 24;

const query = new URLSearchParams(location.search);
const settings = {
  endpoint: query.get('endpoint') ?? '/sessions?bypass=true',
  codec: query.get('codec') ?? 'VP8',
  width: Number(query.get('width') ?? 640),
  height: Number(query.get('height') ?? 480),
  rate: Number(query.get('rate') ?? 30),
  seconds: Number(query.get('seconds') ?? 6),
};

const screen = /** @type {HTMLVideoElement} */ (document.getElementById('screen'));

/** A moving picture whose top left corner carries a number. */
class NumberedCanvas {
  /** When each number was drawn, in ms of performance.now(). @type {Map<number, number>} */
  drawn = new Map();
  #context;
  #number = 0;

  /** @param {number} width @param {number} height */
  constructor(width, height) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d', { alpha: false });
    this.#context = /** @type {CanvasRenderingContext2D} */ (context);
    this.stream = canvas.captureStream(0);
    const [track] = this.stream.getVideoTracks();
    this.track = /** @type {CanvasCaptureMediaStreamTrack} */ (track);
  }

  draw() {
    const context = this.#context;
    const { width, height } = context.canvas;
    const i = this.#number;
    context.fillStyle = '#567';
    context.fillRect(0, 0, width, height);
    context.fillStyle = '#a83';
    context.fillRect((i * 7) % width, 60, 120, height - 120);
    for (let k = 0; k < 40; k++) {
      context.fillStyle = `rgb(${(k * 53 + i) % 255},${(k * 91) % 255},${(k * 17 + i * 3) % 255})`;
      context.fillRect((k * 67 + i * (k % 5)) % width, 80 + ((k * 31) % (height - 140)), 30, 22);
    }
    for (let bit = 0; bit < BITS; bit++) {
      context.fillStyle = (i >> bit) & 1 ? '#fff' : '#000';
      context.fillRect(bit * BIT_PX, 0, BIT_PX, BIT_PX);
    }
    this.drawn.set(i % 2 ** BITS, performance.now());
    this.#number++;
    this.track.requestFrame();
  }
}

function toTenths(ms = 0) {
  return Math.round(ms * 10) / 10;
}

/** Reads numbers from the shown video and says how old each picture is. */
class NumberReader {
  agesMs = /** @type {number[]} */ ([]);
  /** When each of them was read, from the page's start. */
  atMs = /** @type {number[]} */ ([]);
  shownMs = /** @type {number[]} */ ([]);
  firstFrameMs = /** @type {number | null} */ (null);
  #context;

  /** @param {HTMLVideoElement} video @param {NumberedCanvas} source */
  constructor(video, source) {
    this.video = video;
    this.source = source;
    const size = { width: BIT_PX * BITS, height: BIT_PX };
    const strip = Object.assign(document.createElement('canvas'), size);
    const context = strip.getContext('2d', { willReadFrequently: true });
    this.#context = /** @type {CanvasRenderingContext2D} */ (context);
    this.startMs = performance.now();
    this.#wait();
  }

  summary() {
    const { agesMs, atMs, shownMs, firstFrameMs } = this;
    // Of the second half: a connection begins slowly.
    const half = shownMs.slice(Math.floor(shownMs.length / 2));
    const rateHz = ((half.length - 1) * 1000) / Math.max(1, (half.at(-1) ?? 0) - half[0]);
    return { agesMs, atMs, rateHz, firstFrameMs };
  }

  #wait() {
    this.video.requestVideoFrameCallback((_, metadata) => this.#read(metadata));
  }

  #read(/** @type {VideoFrameCallbackMetadata} */ metadata) {
    const nowMs = performance.now();
    this.firstFrameMs ??= nowMs - this.startMs;
    const number = this.#number(metadata);
    const drawnMs = this.source.drawn.get(number);
    if (drawnMs !== undefined) {
      this.agesMs.push(toTenths(nowMs - drawnMs));
      this.atMs.push(toTenths(nowMs - this.startMs));
    }
    this.shownMs.push(nowMs);
    this.#wait();
  }

  #number(/** @type {VideoFrameCallbackMetadata} */ metadata) {
    // The picture may come smaller than it was drawn.
    const width = (BIT_PX * BITS * metadata.width) / settings.width;
    const height = (BIT_PX * metadata.height) / settings.height;
    const context = this.#context;
    context.drawImage(this.video, 0, 0, width, height, 0, 0, BIT_PX * BITS, BIT_PX);
    const row = context.getImageData(0, BIT_PX / 2, BIT_PX * BITS, 1).data;
    let number = 0;
    for (let bit = 0; bit < BITS; bit++) {
      if (row[(bit * BIT_PX + BIT_PX / 2) * 4] > 128) number |= 1 << bit;
    }
    return number;
  }
}

/** @param {NumberedCanvas} source @returns {Promise<RTCPeerConnection>} */
async function connect(source) {
  const peer = new RTCPeerConnection();
  const transceiver = peer.addTransceiver(source.track, {
    direction: 'sendrecv',
    streams: [source.stream],
  });
  const codecs = RTCRtpReceiver.getCapabilities('video')?.codecs ?? [];
  const wanted = [`video/${settings.codec}`, 'video/rtx'];
  transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => wanted.includes(mimeType)));
  peer.ontrack = ({ streams, track }) => {
    screen.srcObject = streams[0] ?? new MediaStream([track]);
  };
  await peer.setLocalDescription();
  if (peer.iceGatheringState !== 'complete') {
    await new Promise((resolve) => {
      peer.onicegatheringstatechange = () => peer.iceGatheringState === 'complete' && resolve(null);
    });
  }
  const response = await fetch(settings.endpoint, {
    method: 'POST',
    headers: { 'Content-Type': 'application/sdp' },
    body: peer.localDescription?.sdp,
  });
  const body = await response.text();
  if (response.status !== 201) throw new Error(`${settings.endpoint}: ${response.status} ${body}`);
  await peer.setRemoteDescription({ type: 'answer', sdp: body });
  return peer;
}

/** The browser's own figures of the picture, both ways. @param {RTCPeerConnection} peer */
async function readStatistics(peer) {
  const found = /** @type {Record<string, object>} */ ({});
  for (const entry of /** @type {any} */ (await peer.getStats()).values()) {
    if (entry.kind === 'video' && entry.type.endsWith('bound-rtp')) found[entry.type] = entry;
  }
  return { inbound: found['inbound-rtp'] ?? {}, outbound: found['outbound-rtp'] ?? {} };
}

async function measure() {
  const source = new NumberedCanvas(settings.width, settings.height);
  setInterval(() => source.draw(), 1000 / settings.rate);
  const reader = new NumberReader(screen, source);
  const peer = await connect(source);
  await pause(settings.seconds * 1000);
  const statistics = await readStatistics(peer);
  peer.close();
  return { ...reader.summary(), ...statistics };
}

const result = await measure().catch((error) => ({ error: String(error) }));
await fetch('/glass/result', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(result),
});

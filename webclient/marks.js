// @ts-check
/**
 * Numbers that go round in the picture, in black and white squares, and are read again.
 *
 * While the control `marks` is on, the server carries the picture's top 24 lines past the
 * model. What is not surely read does not count.
 */

const MARK_PX = 24;
const NUMBER_BITS = 14;
const BITS = NUMBER_BITS + 2; // the parity of the even places and that of the odd ones
const EVEN_PLACES = 0b01010101010101;
const BLACK_MAX = 96; // between the two it is neither
const WHITE_MIN = 160;
const RATE_HZ = 30; // where a source does not tell its own

/** The camera's picture with a number in its top left corner, another one each frame. */
export class MarkedCamera {
  /** When each number was drawn, in ms of performance.now(). @type {Map<number, number>} */
  drawn = new Map();
  #camera;
  #ctx;
  #interval_ms;
  #next_ms = 0;
  #request = 0;
  #number = 0;

  /** @param {HTMLVideoElement} camera plays it */
  constructor(camera, rate_Hz = RATE_HZ) {
    const { videoWidth: width, videoHeight: height } = camera;
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    this.#camera = camera;
    this.#ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));
    const [track] = canvas.captureStream(0).getVideoTracks();
    this.track = /** @type {CanvasCaptureMediaStreamTrack} */ (track);
    this.track.contentHint = 'motion';
    this.#interval_ms = 1000 / rate_Hz;
    this.#wait();
  }

  /** Width of one mark as a part of the picture's: a narrow picture has narrow marks. */
  get markShare() {
    const { width } = this.#ctx.canvas;
    return Math.min(MARK_PX, Math.floor(width / BITS)) / width;
  }

  /** Height of the marks as a part of the picture's. */
  get rowShare() {
    return MARK_PX / this.#ctx.canvas.height;
  }

  stop() {
    cancelAnimationFrame(this.#request);
    this.track.stop();
  }

  /** Draw when the page is drawn: a canvas is captured then, and what is early would wait for it. */
  #wait() {
    this.#request = requestAnimationFrame(() => {
      const now_ms = performance.now();
      if (now_ms >= this.#next_ms) {
        this.#next_ms = Math.max(this.#next_ms + this.#interval_ms, now_ms);
        this.#draw();
      }
      this.#wait();
    });
  }

  #draw() {
    const ctx = this.#ctx;
    const { width, height } = ctx.canvas;
    ctx.drawImage(this.#camera, 0, 0, width, height);
    const code = encode(this.#number);
    const mark_px = this.markShare * width;
    for (let place = 0; place < BITS; place++) {
      ctx.fillStyle = (code >> place) & 1 ? '#fff' : '#000';
      ctx.fillRect(place * mark_px, 0, mark_px, MARK_PX);
    }
    this.drawn.set(this.#number, performance.now());
    this.#number = (this.#number + 1) % (1 << NUMBER_BITS);
    this.track.requestFrame();
  }
}

/** Reads the numbers from the shown video, and notes how old each is when it comes first. */
export class MarkReader {
  ages_ms = /** @type {number[]} */ ([]);
  #video;
  #marked;
  #ctx;
  #request = 0;

  /** @param {HTMLVideoElement} video @param {MarkedCamera} marked */
  constructor(video, marked) {
    const size = { width: BITS * MARK_PX, height: MARK_PX };
    const canvas = Object.assign(document.createElement('canvas'), size);
    const ctx = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
    this.#ctx = /** @type {CanvasRenderingContext2D} */ (ctx);
    this.#video = video;
    this.#marked = marked;
    this.#wait();
  }

  stop() {
    this.#video.cancelVideoFrameCallback(this.#request);
  }

  #wait() {
    this.#request = this.#video.requestVideoFrameCallback(() => {
      const now_ms = performance.now();
      const number = this.#read();
      const drawn_ms = number === null ? undefined : this.#marked.drawn.get(number);
      if (number !== null && drawn_ms !== undefined) {
        this.ages_ms.push(now_ms - drawn_ms);
        this.#marked.drawn.delete(number);
      }
      this.#wait();
    });
  }

  /** @returns {number | null} null if it is not surely read */
  #read() {
    const { videoWidth, videoHeight } = this.#video; // may be smaller than what was drawn
    const ctx = this.#ctx;
    const { width, height } = ctx.canvas;
    const { markShare, rowShare } = this.#marked;
    const from = /** @type {const} */ ([BITS * markShare * videoWidth, rowShare * videoHeight]);
    ctx.drawImage(this.#video, 0, 0, ...from, 0, 0, width, height);
    const row = ctx.getImageData(0, height / 2, width, 1).data;
    return decode(Array.from({ length: BITS }, (_, place) => row[(place + 0.5) * MARK_PX * 4]));
  }
}

/** Add the parities, both odd: neither all black nor all white is a number. */
function encode(number = 0) {
  const parity = (/** @type {number} */ places) => 1 ^ countOnes(number & places) % 2;
  const high = parity(EVEN_PLACES) | (parity(EVEN_PLACES << 1) << 1);
  return number | (high << NUMBER_BITS);
}

/** @param {number[]} levels 0 to 255 of each mark @returns {number | null} */
function decode(levels) {
  if (levels.some((level) => level > BLACK_MAX && level < WHITE_MIN)) return null;
  const code = levels.reduce((sum, level, place) => sum | (Number(level >= WHITE_MIN) << place), 0);
  const number = code & ((1 << NUMBER_BITS) - 1);
  return encode(number) === code ? number : null;
}

function countOnes(number = 0) {
  return number.toString(2).replaceAll('0', '').length;
}

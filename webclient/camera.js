// @ts-check
/**
 * Where the picture comes from: a camera, the screen, a video file, or a test picture.
 *
 * A source is named `camera`, `camera:<device id>`, `screen`, `file` or `test`.
 *
 * @typedef {{name: string, stream: MediaStream, track: MediaStreamTrack,
 *   isMirror: boolean, close: () => void}} Source
 *   `isMirror`: people expect to see themselves as in a mirror
 */

import { drawTestPicture } from './test-picture.js';

const FRAME_RATE_HZ = 30;
const FRAME_INTERVAL_MS = 1000 / FRAME_RATE_HZ;
const CAMERA = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
const SCREEN = { width: { max: 1280 }, height: { max: 1280 }, frameRate: { max: 30 } };
const FILE_MAX_PX = 1280; // a longer side costs time and shows nothing more
const TEST_WIDTH_PX = 640;
const TEST_HEIGHT_PX = 480;

/** Why there is no picture, and what to do, in a sentence or two. */
export class SourceError extends Error {
  /** Whether somebody else has the camera. */
  get isBusy() {
    const { name } = /** @type {DOMException} */ (this.cause ?? {});
    return name === 'NotReadableError' || name === 'AbortError';
  }
}

/**
 * Open a source; the caller closes it.
 *
 * @param {string} name
 * @param {File | null} [file] for the name `file`
 * @returns {Promise<Source>}
 * @throws {SourceError}
 */
export async function openSource(name, file) {
  if (name === 'test') return openTestPicture();
  if (name === 'file' && file) return openFile(file);
  const [kind, deviceId] = name.split(/:(.*)/s);
  if (kind !== 'camera' && kind !== 'screen') {
    throw new SourceError(`There is no source "${name}": use camera, screen, file or test.`);
  }
  if (!navigator.mediaDevices) throw new SourceError(insecureOrigin());
  try {
    const stream = await (kind === 'screen' ? captureScreen() : captureCamera(deviceId));
    return fromStream(name, stream);
  } catch (error) {
    throw new SourceError(explain(/** @type {DOMException} */ (error), kind), { cause: error });
  }
}

/** @returns {Promise<{name: string, label: string}[]>} what there is to choose from */
export async function listSources() {
  const { mediaDevices } = navigator;
  const devices = (await mediaDevices?.enumerateDevices()) ?? [];
  // Without permission there is one entry for all cameras, with neither id nor label.
  const cameras = devices
    .filter(({ kind, deviceId }) => kind === 'videoinput' && deviceId)
    .map(({ deviceId, label }, i) => ({
      name: `camera:${deviceId}`,
      label: label.replace(/ \([0-9a-f]{4}:[0-9a-f]{4}\)$/, '') || `Camera ${i + 1}`,
    }));
  const canShare = mediaDevices && 'getDisplayMedia' in mediaDevices;
  return [
    ...(cameras.length > 0 ? cameras : [{ name: 'camera', label: 'Camera' }]),
    ...(canShare ? [{ name: 'screen', label: 'Screen or window' }] : []),
    { name: 'file', label: 'Video file…' },
    { name: 'test', label: 'Test picture' },
  ];
}

/** @param {string | undefined} deviceId */
function captureCamera(deviceId) {
  const video = deviceId ? { ...CAMERA, deviceId: { exact: deviceId } } : CAMERA;
  return navigator.mediaDevices.getUserMedia({ video, audio: false });
}

function captureScreen() {
  return navigator.mediaDevices.getDisplayMedia({ video: SCREEN, audio: false });
}

function openTestPicture() {
  const started_ms = performance.now();
  return fromCanvas('test', TEST_WIDTH_PX, TEST_HEIGHT_PX, (ctx) => {
    drawTestPicture(ctx, (performance.now() - started_ms) / 1000);
  });
}

/** A video element's own captureStream() is missing in Safari: draw into a canvas instead. */
async function openFile(/** @type {File} */ file) {
  const video = document.createElement('video');
  const url = URL.createObjectURL(file);
  Object.assign(video, { src: url, loop: true, muted: true, playsInline: true });
  const free = () => {
    video.pause();
    URL.revokeObjectURL(url);
  };
  try {
    await video.play();
  } catch {
    free();
    throw new SourceError(`The browser cannot play "${file.name}": choose an MP4 or WebM video.`);
  }
  const { videoWidth: width, videoHeight: height } = video;
  const ratio = Math.min(1, FILE_MAX_PX / Math.max(width, height));
  const draw = (/** @type {CanvasRenderingContext2D} */ ctx) => {
    ctx.drawImage(video, 0, 0, ctx.canvas.width, ctx.canvas.height);
  };
  return fromCanvas('file', Math.round(width * ratio), Math.round(height * ratio), draw, free);
}

/**
 * @param {string} name @param {number} width @param {number} height
 * @param {(ctx: CanvasRenderingContext2D) => void} draw one frame
 * @returns {Source}
 */
function fromCanvas(name, width, height, draw, free = () => {}) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));
  draw(ctx);
  const timer = setInterval(() => draw(ctx), FRAME_INTERVAL_MS);
  return fromStream(name, canvas.captureStream(FRAME_RATE_HZ), () => {
    clearInterval(timer);
    free();
  });
}

/** @param {string} name @param {MediaStream} stream @returns {Source} */
function fromStream(name, stream, free = () => {}) {
  const [track] = stream.getVideoTracks();
  track.contentHint = 'motion';
  const isMirror = name.startsWith('camera') && track.getSettings().facingMode !== 'environment';
  const close = () => {
    track.stop();
    free();
  };
  return { name, stream, track, isMirror, close };
}

function insecureOrigin() {
  const { origin, hostname } = location;
  const port = location.port || '80';
  const local = `localhost:${port}`;
  return (
    `Browsers lend a camera only to https:// pages and to localhost, not to ${origin}. ` +
    `Open http://${local} on that computer, or bring it to yours with ` +
    `"ssh -L ${port}:${local} ${hostname}", or start the server with --tls self-signed.`
  );
}

/**
 * Say why a device was not to be had, and what to do.
 *
 * @param {DOMException} error @param {'camera' | 'microphone' | 'screen'} kind
 */
export function explain({ name, message }, kind) {
  if (kind === 'screen') {
    return name === 'NotAllowedError'
      ? 'No screen was chosen. Press Start again and choose a screen or a window.'
      : 'The system does not let the browser see the screen: allow it in the system’s settings.';
  }
  const again = kind === 'camera' ? 'press Start again' : 'switch it on again';
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return (
        `The ${kind} is not allowed here. Click the ${kind} sign beside the address, allow it, ` +
        `and ${again}.`
      );
    case 'NotFoundError':
      return kind === 'camera'
        ? 'No camera was found. Connect one and press Start again, or use the test picture.'
        : 'No microphone was found. Connect one and switch it on again.';
    case 'OverconstrainedError':
      return `That ${kind} is gone. Choose another source below the picture.`;
    case 'NotReadableError':
    case 'AbortError':
      return `The ${kind} is in use by another program. Close that program and ${again}.`;
    default:
      return `The ${kind} could not be opened: ${message || name}.`;
  }
}

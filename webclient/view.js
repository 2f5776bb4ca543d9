// @ts-check
/**
 * A bare page that plays one session: a Browser Source for OBS, or a screen on a stage.
 *
 * It lies at /view/{id or name}. Its query says how it looks: `muted=1`, `fit=cover` (fill the
 * window) or `contain` (show all), `mirror=1`, `overlay=style,viewers,notice` (words over the
 * picture: any of the three), and what: `camera=1` for the camera's own picture. Every other name is a
 * control of the session, set once when it begins to play: `prompt`, `strength`, `seed`,
 * `stability`, `transition_s`, `bypass`, `freeze`, `region`. After a #, the token of a server that
 * asks for one: there nobody logs it.
 */

import { withToken } from './bearer.js';
import { Overlay } from './overlay.js';
import { pause } from './pause.js';

const PAUSE_MS = 1000;
const WATCH_MS = 1000;
const SILENCE_MS = 4000; // no picture for so long: ask whether there is still a session
const STANDSTILL_MS = 15_000; // only a new connection helps

const { body } = document;
const video = /** @type {HTMLVideoElement} */ (document.getElementById('screen'));
const session = location.pathname.split('/').at(-1);
const token = location.hash.slice(1);
const query = new URLSearchParams(location.search);
const take = (/** @type {string} */ key) => {
  const value = query.get(key);
  query.delete(key);
  return value;
};

video.muted = take('muted') === '1';
body.dataset.fit = take('fit') ?? 'contain';
if (take('mirror') === '1') body.dataset.mirror = '';
const isCamera = take('camera') === '1';
const overlay = new Overlay(body, take('overlay') ?? '', ask);
const controls = Object.fromEntries([...query].map(([key, text]) => [key, toValue(key, text)]));
let pause_ms = PAUSE_MS; // before the next try, as the server asks
let steered = ''; // the session that has these controls already

/** @param {string} key @param {string} text */
function toValue(key, text) {
  if (key === 'prompt' || key === 'region') return text;
  return ['bypass', 'freeze'].includes(key) ? text === '1' || text === 'true' : Number(text);
}

/** @param {string} path @param {RequestInit} [init] */
function ask(path, init) {
  return fetch(path, withToken(token, init));
}

/** Set the controls, once for each session. @param {string} id */
async function steer(id) {
  if (id === steered || Object.keys(controls).length === 0) return;
  steered = id;
  const body = JSON.stringify(controls);
  const response = await ask(`/sessions/${id}/controls`, { method: 'PATCH', body });
  if (!response.ok) console.warn((await response.json()).detail);
}

/** Play a stream; where sound needs a click first, without it. @param {MediaStream} stream */
async function show(stream) {
  if (video.srcObject === stream) return; // its other track came before
  video.srcObject = stream;
  await video.play().catch(({ name, message }) => {
    if (name !== 'NotAllowedError') return;
    console.warn(`Without sound, for nobody has clicked: ${message}`);
    video.muted = true;
    return video.play();
  });
}

/** @param {RTCPeerConnection} pc @returns {Promise<string>} the URL of this viewer's session */
async function connect(pc) {
  const ice = await ask('/api/ice-servers', { cache: 'no-store' });
  if (ice.ok) pc.setConfiguration({ ...pc.getConfiguration(), ...(await ice.json()) });
  pc.addTransceiver('video', { direction: 'recvonly' });
  if (!video.muted) pc.addTransceiver('audio', { direction: 'recvonly' });
  pc.ontrack = ({ streams: [stream] }) => show(stream);
  const offer = (await pc.createOffer()).sdp ?? '';
  const sdp = offer.replace('useinbandfec=1', '$&;stereo=1'); // Chromium plays mono unasked
  await pc.setLocalDescription({ type: 'offer', sdp });
  const headers = { 'Content-Type': 'application/sdp' };
  const path = `/whep/${session}${isCamera ? '?camera=1' : ''}`;
  const response = await ask(path, { method: 'POST', headers, body: sdp });
  if (response.status !== 201) {
    pause_ms = Math.max(PAUSE_MS, 1000 * Number(response.headers.get('Retry-After')));
    throw new Error((await response.json()).detail);
  }
  await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  return /** @type {string} */ (response.headers.get('Location'));
}

/** Return when nothing more will be seen. @param {RTCPeerConnection} pc @param {string} url */
async function watch(pc, url) {
  let [frames, changed_ms] = [0, performance.now()];
  while (!['failed', 'closed'].includes(pc.connectionState)) {
    await pause(WATCH_MS);
    const stats = [...(await pc.getStats()).values()];
    const { framesDecoded = 0 } = stats.find((s) => s.framesDecoded !== undefined) ?? {};
    if (framesDecoded !== frames) [frames, changed_ms] = [framesDecoded, performance.now()];
    const silence_ms = performance.now() - changed_ms;
    if (silence_ms > STANDSTILL_MS) return;
    if (silence_ms > SILENCE_MS && !(await ask(url, { method: 'HEAD' })).ok) return;
  }
}

/** Connect, play, and tell when it has ended; never throws. */
async function play() {
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const life = new AbortController();
  let url = '';
  const leave = () => url && ask(url, { method: 'DELETE', keepalive: true }).catch(() => {});
  addEventListener('pagehide', leave, { once: true });
  try {
    url = await connect(pc);
    await steer(url.split('/')[2]);
    overlay.follow(url.split('/')[2], life.signal);
    await watch(pc, url);
  } catch (error) {
    console.info(`Not live: ${/** @type {Error} */ (error).message}`);
  }
  removeEventListener('pagehide', leave);
  body.dataset.state = 'waiting';
  life.abort();
  leave();
  pc.close();
}

video.onplaying = () => (body.dataset.state = 'live');
for (;;) {
  await play();
  await pause(pause_ms);
  pause_ms = PAUSE_MS;
}

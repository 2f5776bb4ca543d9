// @ts-check
/** The page: brings together what the other modules do. */

import { access } from './access.js';
import { Air } from './air.js';
import { SourceError, listSources } from './camera.js';
import { ControlForm } from './control-form.js';
import { DelayMeter } from './delay-meter.js';
import { Hud } from './hud.js';
import { toError } from './live-error.js';
import { Keeping } from './keeping.js';
import { bindKeys, bindPanic, listKeys } from './keys.js';
import { Messages } from './messages.js';
import { bindMicrophone } from './microphone.js';
import { ModelList } from './models.js';
import { Presets } from './presets.js';
import { RegionChoice } from './region.js';
import { isResumed, keepSource } from './resume.js';
import { SdxsLiveElement } from './sdxs-live-element.js';
import { Settings } from './settings.js';
import { Shelf, drawCover, showPreview } from './shelf.js';
import { Stage } from './stage.js';
import { drawTestPicture } from './test-picture.js';

const STALL_MS = 1500;
const LOADING_PAUSE_MS = 1000;
const HINT = 'Drag the line to compare with the camera.';
const NO_ANSWER = 'The server does not answer. Trying again.';
const ALLOW = 'Allow the picture in the question of your browser.';
const MUTED =
  'The camera gives no picture for now: a privacy switch or another program holds it back.';
const ENDED = 'The source has ended: it was unplugged, or sharing was stopped.';
const HELD = 'The model is slower than a second a frame: its last picture stays, with a pause mark.';
const NO_MODEL = 'The model does not answer: you see the camera itself until it does.';
const IN_STYLES = 'A style by name, or a blend';
const IN_WORDS = 'In your own words';
const WORDS_EXAMPLE = 'a harbour at night, oil painting';
const UNFIT = 'The safety checker finds the picture unfit to be shown: it is blurred.';
const UNCHECKED = 'The picture is blurred until the safety checker has looked at it.';
const NEEDS_TOKEN = 'This server asks for a token, or for another one.';
const STILL = 'No new picture comes from the server. Waiting a few seconds, then connecting again.';

/** @param {string} id */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {Event} event */
const detailOf = (event) => /** @type {CustomEvent} */ (event).detail;

const { body } = document;
const live = /** @type {SdxsLiveElement} */ ($('live'));
const camera = /** @type {HTMLVideoElement} */ ($('camera'));
const help = /** @type {HTMLDialogElement} */ ($('help'));
const sourceMenu = /** @type {HTMLSelectElement} */ ($('source'));
const fileInput = /** @type {HTMLInputElement} */ ($('file'));

const settings = new Settings();
const messages = new Messages(document);
const hud = new Hud(document, live.video);
const stage = new Stage(document, live, settings);
const air = new Air($('freeze'), live, stage, (sentence) => messages.toast(sentence));
const keeping = new Keeping(document, live, (sentence) => messages.toast(sentence));
const meter = new DelayMeter(live, camera, () => hud.delay_ms, () => air.isFrozen);
const shelf = new Shelf($('shelf'), () => (camera.videoWidth ? drawCamera : drawTestPicture));
const models = new ModelList(document, () => $('models').matches(':popover-open'));
const toggleMicrophone = bindMicrophone($('microphone'), live, (words) => messages.toast(words));
const region = new RegionChoice(document);
let engineModel = ''; // as the session's statistics say
const form = new ControlForm(document, async (set) => {
  if (set.prompt !== undefined && !isRunning()) await showPoster(set.prompt);
  await live.set(set);
  settings.set(set);
});
const presets = new Presets(document, toLook);

/** @type {import('./keys.js').Key[]} */
const KEYS = [
  [['0'], 'Panic: the camera, whatever is shown', () => air.showCamera()],
  [['b'], 'The camera itself, and back', () => air.toggleBypass()],
  [['h'], 'Hold the picture: freeze, and go on', () => air.toggleFreeze()],
  [[']', 'ArrowRight'], 'Next style', () => chooseNeighbour(1)],
  [['[', 'ArrowLeft'], 'Previous style', () => chooseNeighbour(-1)],
  [['v'], 'Your voice: the microphone, on and off', toggleMicrophone],
  [['f'], 'Full screen', () => stage.toggleFullscreen()],
  [['s'], 'Save a picture', saveSnapshot],
  [['c'], 'Save the last half minute', () => keeping.saveClip()],
  [['r'], 'Record on the server, and end it', () => keeping.toggleRecording()],
  [['m'], 'Mirror', () => stage.toggleMirror()],
  [['w'], 'Camera under a wipe, beside, or hidden', () => stage.cycleView()],
  [['i'], 'Details', toggleDetails],
  [['l'], 'Copy a link with these settings', () => copyLink()],
  [['?'], 'These keys', () => help.showModal()],
];
/** @type {import('./keys.js').Key[]} */
const DIGITS = [...'123456789'].map((key) => [[key], '', () => choosePreset(Number(key))]);

const CLICKS = /** @type {Record<string, () => unknown>} */ ({
  start: () => (isRunning() ? stop() : start()),
  'start-camera': () => start(settings.values.source === 'test' ? 'camera' : undefined),
  'start-test': () => start('test'),
  bypass: () => air.toggleBypass(),
  freeze: () => air.toggleFreeze(),
  microphone: toggleMicrophone,
  mirror: () => stage.toggleMirror(),
  snapshot: saveSnapshot,
  clip: () => keeping.saveClip(),
  record: () => keeping.toggleRecording(),
  'copy-link': () => copyLink(),
  fullscreen: () => stage.toggleFullscreen(),
  'help-open': () => help.showModal(),
  'details-open': toggleDetails,
  'measure-delay': () => meter.show($('measured')),
  'refresh-thumbnails': () => shelf.refresh(),
  'seed-random': () => form.change({ seed: Math.floor(Math.random() * 2 ** 31) }),
});

function isRunning() {
  return ['connecting', 'waiting', 'live', 'reconnecting'].includes(live.state);
}

function stop() {
  keepSource('');
  live.stop();
}

async function start(name = settings.values.source, file = /** @type {File | null} */ (null)) {
  if (name === 'file' && !file) return fileInput.click();
  const before = settings.values.source;
  settings.set({ source: name });
  if (isRunning()) keepSource(name); // before it is open: a reload may come first
  const isAsked = name.startsWith('camera') || name === 'screen';
  if (isAsked && !isRunning()) messages.say('asking', ALLOW);
  try {
    await live.start(name, file);
    messages.unsay('asking', 'source');
  } catch (error) {
    if (!(error instanceof SourceError)) throw error;
    if (isRunning()) {
      settings.set({ source: before });
      keepSource(before);
    }
    messages.say('source', error.message, 'Use the test picture', () => start('test'));
  }
  await fillSources();
}

async function fillSources() {
  const sources = await listSources();
  sourceMenu.replaceChildren(...sources.map(({ name, label }) => new Option(label, name)));
  const inUse = `camera:${live.source?.track.getSettings().deviceId}`;
  const names = sources.map(({ name }) => name);
  const wanted = [settings.values.source, inUse, names[0]];
  sourceMenu.value = wanted.find((name) => names.includes(name)) ?? '';
}

function askForToken() {
  messages.say('token', NEEDS_TOKEN, 'Enter the token', () => {
    const token = prompt('The token of this server:')?.trim();
    if (!token) return;
    access.token = token;
    live.setAttribute('token', token);
    messages.unsay('token');
    shelf.fill();
    start();
  });
}

function chooseNeighbour(offset = 1) {
  const prompt = shelf.neighbour(offset);
  if (!prompt) return;
  shelf.select(prompt);
  form.change({ prompt });
}

/** What a stream deck asks for too. @param {string} name @param {Record<string, string>} [query] */
async function actOnSession(name, query = {}) {
  if (!live.session) return messages.toast('Press Start first: a playlist plays to a session.');
  const url = `sessions/${live.session}/actions/${name}?${new URLSearchParams(query)}`;
  const response = await access.ask(url, { method: 'POST' }).catch(() => null);
  if (!response?.ok) messages.toast(response ? (await toError(response)).message : NO_ANSWER);
}

function choosePreset(number = 1) {
  if (!presets.chooseNumber(number)) messages.toast(`There is no preset ${number} yet.`);
}

function toggleDetails() {
  const isHidden = $('details').toggleAttribute('hidden');
  $('details-open').ariaExpanded = String(!isHidden);
}

async function saveSnapshot() {
  try {
    await stage.saveSnapshot();
    messages.toast('Saved among your downloads.');
  } catch (error) {
    messages.toast(/** @type {Error} */ (error).message);
  }
}

/** What is shown: without a prompt that is the style that the shelf marks. */
function toLook() {
  const prompt = shelf.chosen;
  return { ...(prompt ? { prompt } : {}), ...form.look };
}

async function copyLink(look = toLook()) {
  const link = settings.linkTo(look); // all of it: the other end may have set something else
  try {
    await navigator.clipboard.writeText(link);
    messages.toast('Link copied: it opens this page with these settings.');
  } catch {
    prompt('Copy this link:', link); // the clipboard is only for https:// and localhost
  }
}

function drawCamera(/** @type {CanvasRenderingContext2D} */ ctx) {
  drawCover(ctx, camera);
}

/** Before the start: the test picture in the chosen style, which also tries out the words. */
function showPoster(prompt = settings.values.prompt) {
  return showPreview(/** @type {HTMLImageElement} */ ($('poster')), prompt, drawTestPicture);
}

/** Say that the model loads until it has; then show its styles, on the test picture for now. */
async function awaitModel() {
  const response = await access.ask('readyz', { cache: 'no-store' }).catch(() => null);
  if (!response || response.status === 503) {
    const problem = await response?.json().catch(() => null);
    if (!isRunning()) messages.say('loading', problem?.detail ?? NO_ANSWER);
    setTimeout(awaitModel, LOADING_PAUSE_MS);
    return;
  }
  messages.unsay('loading');
  if (!isRunning()) showPoster().catch(({ message }) => form.refuse(message));
  models.follow();
  await shelf.fill();
  showExample();
}

function showExample() {
  const isWords = body.dataset.prompts === 'words';
  $('prompt').setAttribute('placeholder', isWords ? WORDS_EXAMPLE : shelf.example);
}

models.addEventListener('running', async (event) => {
  const { title, strength, free_text, isFirst } = detailOf(event);
  $('strength').title = strength;
  $('prompt-label').textContent = free_text ? IN_WORDS : IN_STYLES;
  body.dataset.prompts = free_text ? 'words' : 'styles';
  if (isFirst) return;
  messages.toast(`The server runs another model: ${title}.`);
  if (!isRunning()) showPoster().catch(({ message }) => form.refuse(message));
  await shelf.fillAnew();
  showExample();
});
$('models').addEventListener('toggle', () => models.follow());

live.addEventListener('source', (event) => {
  const { state } = detailOf(event);
  if (state === 'open') messages.unsay('muted');
  if (state === 'muted') messages.say('muted', MUTED);
  if (state !== 'ended') return;
  stop();
  messages.say('source', ENDED, 'Start again', () => start());
});

live.addEventListener('state', (event) => {
  const { state, sentence, retry_in_s, status } = detailOf(event);
  body.dataset.state = state;
  delete body.dataset.engine;
  hud.updateState(state);
  keeping.follow(state);
  $('announcer').textContent = sentence;
  $('start').dataset.does = isRunning() ? 'stop' : 'start';
  messages.unsay('connection', 'stall', 'loading', 'muted', 'blurred');
  if (status === 401) {
    askForToken();
  } else if (state === 'failed') {
    messages.say('connection', sentence, 'Try again', () => start());
  } else if (state === 'live') {
    if (!settings.values.seen) messages.toast(HINT);
    settings.set({ seen: true });
    keepSource(settings.values.source);
    shelf.fill();
    if (meter.isWished) meter.show($('measured'));
  } else if (state === 'waiting') {
    messages.say('connection', sentence, 'Leave the line', stop);
  } else if (state !== 'closed') {
    messages.sayPause('connection', sentence, retry_in_s, () => live.retry());
  }
});

live.addEventListener('stats', (event) => {
  const { server, quiet_ms } = detailOf(event);
  hud.updateStats(detailOf(event));
  hud.updateState(live.state, server, quiet_ms > STALL_MS);
  if (server) body.dataset.engine = server.state;
  keeping.update(server?.recording ?? null);
  if (server) presets.updateRunning(server.playlist);
  const { model = engineModel } = server?.engine ?? {};
  if (model !== engineModel) models.follow();
  engineModel = model;
  if (live.source?.track.muted) messages.say('muted', MUTED);
  else if (server?.stall === 'held') messages.say('stall', HELD);
  else if (server?.state === 'stalled') messages.say('stall', NO_MODEL);
  else if (quiet_ms > STALL_MS) messages.say('stall', STILL);
  else if (server?.blurred) messages.say('blurred', server.blurred === 'unfit' ? UNFIT : UNCHECKED);
  else messages.unsay('stall', 'blurred');
});

live.addEventListener('controls', (event) => {
  const controls = detailOf(event);
  form.update(controls);
  shelf.select(controls.prompt);
  air.follow(controls);
  region.update(controls.region);
});
live.addEventListener('steered', (event) => settings.follow(detailOf(event)));

live.addEventListener('refused', (event) => {
  const { detail, name } = detailOf(event);
  if (name === 'region') return refuseRegion(detail);
  settings.set({ prompt: '' });
  form.refuse(detail);
});

function refuseRegion(sentence = '') {
  settings.set({ region: 'both' });
  region.refuse(sentence);
}

region.addEventListener('choose', async (event) => {
  const set = { region: detailOf(event) };
  try {
    await live.set(set);
    settings.set(set);
    region.update(set.region);
  } catch (error) {
    region.refuse(/** @type {Error} */ (error).message);
  }
});

live.addEventListener('notice', (event) => messages.toast(detailOf(event).detail));
presets.addEventListener('choose', (event) => form.change(detailOf(event)));
presets.addEventListener('link', (event) => copyLink({ ...toLook(), ...detailOf(event) }));
presets.addEventListener('play', (event) => actOnSession('start-playlist', { name: detailOf(event) }));
presets.addEventListener('stop', () => actOnSession('stop-playlist'));
shelf.addEventListener('choose', (event) => form.change({ prompt: detailOf(event) }));

sourceMenu.addEventListener('change', () => {
  if (sourceMenu.value === 'file') fileInput.click();
  else if (isRunning()) start(sourceMenu.value);
  else settings.set({ source: sourceMenu.value });
});
fileInput.addEventListener('change', () => start('file', fileInput.files?.[0]));
fileInput.addEventListener('cancel', fillSources);
navigator.mediaDevices?.addEventListener('devicechange', fillSources);

for (const [id, act] of Object.entries(CLICKS)) $(id).addEventListener('click', () => act());

bindPanic('0', () => air.showCamera());
bindKeys([...KEYS, ...DIGITS], () => help.open);

// A page that comes back from the browser's memory has ended its session on leaving.
window.addEventListener('pageshow', ({ persisted }) => {
  if (persisted && live.source) start();
});

access.addEventListener('refused', askForToken);
if (access.token) live.setAttribute('token', access.token);
$('host').textContent = location.host;
form.update(settings.controls);
shelf.select(settings.values.prompt);
region.update(settings.values.region);
live.set(settings.controls);
const elsewhere = settings.problems.filter((problem) => !form.warn(...problem));
if (elsewhere.length > 0) messages.toast(elsewhere.map(([, sentence]) => sentence).join(' '));
listKeys($('key-list'), [...KEYS, [['1 … 9'], 'The first to the ninth preset', () => {}]]);
presets.refresh();
fillSources();
awaitModel();
region.fill();
if (settings.values.autostart || isResumed(settings.values.source)) start();

// @ts-check
/** The stage: the camera's picture and the translated one, the wipe between, the mirror. */

import { download } from './download.js';

const STEP = 2; // percent of the picture's width
const LARGE_STEP = 10;
const STEPS = /** @type {Record<string, (at: number) => number>} */ ({
  ArrowLeft: (at) => at - STEP,
  ArrowDown: (at) => at - STEP,
  ArrowRight: (at) => at + STEP,
  ArrowUp: (at) => at + STEP,
  PageDown: (at) => at - LARGE_STEP,
  PageUp: (at) => at + LARGE_STEP,
  Home: () => 0,
  End: () => 100,
});
const VIEWS = ['wipe', 'beside', 'hidden'];

/** What the person sees of both pictures; follows the settings. */
export class Stage {
  #root;
  #live;
  #camera;
  #settings;
  #wipe;

  /**
   * @param {Document} root holds the ids of index.html
   * @param {import('./sdxs-live-element.js').SdxsLiveElement} live
   * @param {import('./settings.js').Settings} settings
   */
  constructor(root, live, settings) {
    this.#root = root;
    this.#live = live;
    this.#settings = settings;
    this.#camera = /** @type {HTMLVideoElement} */ (root.getElementById('camera'));
    const stage = /** @type {HTMLElement} */ (root.getElementById('stage'));
    keepAspect(stage, this.#camera);
    keepAspect(stage, live.video);
    this.#wipe = new Wipe(stage, /** @type {HTMLElement} */ (root.getElementById('wipe')));
    this.#wipe.addEventListener('move', (event) => {
      settings.set({ wipe: /** @type {CustomEvent} */ (event).detail });
    });
    live.addEventListener('source', () => {
      this.#camera.srcObject = live.source?.stream ?? null;
      this.update();
    });
    settings.addEventListener('change', () => this.update());
    if (settings.values.name) live.setAttribute('name', settings.values.name);
    this.update();
  }

  update() {
    const { view, wipe, mirror } = this.#settings.values;
    this.#root.body.dataset.view = view;
    for (const input of this.#root.querySelectorAll('input[name="view"]')) {
      const radio = /** @type {HTMLInputElement} */ (input);
      radio.checked = radio.value === view;
    }
    this.#wipe.update(wipe);
    const isMirrored = mirror ?? this.#live.source?.isMirror ?? false;
    this.#live.toggleAttribute('mirrored', isMirrored);
    this.#camera.classList.toggle('mirrored', isMirrored);
    this.#press('mirror', isMirrored);
  }

  toggleMirror() {
    this.#settings.set({ mirror: !this.#live.hasAttribute('mirrored') });
  }

  cycleView() {
    const { view } = this.#settings.values;
    this.#settings.set({ view: VIEWS[(VIEWS.indexOf(view) + 1) % VIEWS.length] });
  }

  /** Whether the camera is shown instead of the translation. */
  get isBypassed() {
    return this.#root.body.hasAttribute('data-bypass');
  }

  set isBypassed(isOn) {
    this.#root.body.toggleAttribute('data-bypass', isOn);
    this.#press('bypass', isOn);
  }

  /** The whole page, or on an iPhone, which cannot do that, its player. */
  async toggleFullscreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (document.fullscreenEnabled) await document.documentElement.requestFullscreen();
    else Reflect.get(this.#live.video, 'webkitEnterFullscreen')?.call(this.#live.video);
  }

  /** Save the picture on screen as a PNG. @throws {Error} there is none */
  async saveSnapshot() {
    const picture = await this.#live.snapshot();
    const style = this.#settings.values.prompt.replace(/[^\w-]+/g, '_') || 'picture';
    const moment = new Date().toISOString().replace(/[:.]/g, '-').slice(0, 19);
    download(picture, `${style}-${moment}.png`);
  }

  /** @param {string} id @param {boolean} isOn */
  #press(id, isOn) {
    this.#root.getElementById(id)?.setAttribute('aria-pressed', String(isOn));
  }
}

/** The line between camera (left) and translation (right). Event: `move`, its detail the place. */
export class Wipe extends EventTarget {
  #stage;
  #handle;
  #at = 0; // percent from the left edge of the picture

  /** @param {HTMLElement} stage @param {HTMLElement} handle of the role "slider", in the picture */
  constructor(stage, handle) {
    super();
    this.#stage = stage;
    this.#handle = handle;
    handle.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      handle.focus({ preventScroll: true });
      handle.setPointerCapture(event.pointerId);
    });
    handle.addEventListener('pointermove', (event) => {
      if (handle.hasPointerCapture(event.pointerId)) this.#drag(event.clientX);
    });
    handle.addEventListener('keydown', (event) => {
      const step = STEPS[event.key];
      if (!step) return;
      event.preventDefault(); // which also tells the page that the key is taken
      this.#move(step(this.#at));
    });
  }

  /** Show the line at `at` percent. */
  update(at = 50) {
    this.#at = at;
    this.#stage.style.setProperty('--wipe', `${at}%`);
    this.#handle.setAttribute('aria-valuenow', at.toFixed());
    this.#handle.setAttribute('aria-valuetext', `${at.toFixed()} % camera`);
  }

  #drag(x_px = 0) {
    const picture = /** @type {HTMLElement} */ (this.#handle.parentElement);
    const { left, width } = picture.getBoundingClientRect();
    this.#move(((x_px - left) / width) * 100);
  }

  #move(at = 0) {
    this.update(Math.min(100, Math.max(0, at)));
    this.dispatchEvent(new CustomEvent('move', { detail: this.#at }));
  }
}

/**
 * Give both pictures the shape of the one that `video` plays, also when it changes.
 *
 * @param {HTMLElement} stage @param {HTMLVideoElement} video
 */
function keepAspect(stage, video) {
  const update = () => {
    const { videoWidth, videoHeight } = video;
    if (videoWidth) stage.style.setProperty('--aspect', String(videoWidth / videoHeight));
  };
  video.addEventListener('resize', update);
  video.addEventListener('loadedmetadata', update);
}

// @ts-check
/**
 * What goes on air: the translation, the camera itself, or a picture that is held.
 *
 * The camera is shown here before the server has heard of it: a panic key may not wait. What the
 * server said before it heard does not undo it.
 *
 * @typedef {import('./sdxs-live.js').Controls} Controls
 */

const NOTHING_TO_HOLD = 'There is no translated picture to freeze.';
const CAMERA_IS_SHOWN = 'The camera is shown: end that (B) before you freeze the translation.';

export class Air {
  #live;
  #stage;
  #button;
  #tell;
  #unanswered = 0;

  /**
   * @param {HTMLElement} button shows whether the picture is frozen
   * @param {import('./sdxs-live-element.js').SdxsLiveElement} live
   * @param {import('./stage.js').Stage} stage
   * @param {(sentence: string) => void} tell
   */
  constructor(button, live, stage, tell) {
    this.#button = button;
    this.#live = live;
    this.#stage = stage;
    this.#tell = tell;
  }

  get isFrozen() {
    return this.#button.ariaPressed === 'true';
  }

  /** The camera, whatever was shown; a second time it changes nothing. */
  showCamera() {
    return this.#set({ bypass: true, freeze: false });
  }

  toggleBypass() {
    return this.#set({ bypass: !this.#stage.isBypassed, freeze: false });
  }

  toggleFreeze() {
    if (this.#live.state !== 'live') return this.#tell(NOTHING_TO_HOLD);
    if (this.#stage.isBypassed) return this.#tell(CAMERA_IS_SHOWN);
    return this.#set({ freeze: !this.isFrozen });
  }

  /** Show what the server applies, unless it has yet to hear what was asked for here. */
  follow(/** @type {Partial<Controls>} */ controls) {
    if (this.#unanswered === 0) this.#show(controls);
  }

  #show(/** @type {Partial<Controls>} */ { bypass, freeze }) {
    if (bypass !== undefined) this.#stage.isBypassed = bypass;
    if (freeze !== undefined) this.#button.ariaPressed = String(freeze);
  }

  async #set(/** @type {Partial<Controls>} */ set) {
    this.#show(set);
    this.#unanswered += 1;
    try {
      await this.#live.set(set);
    } catch (error) {
      this.#tell(/** @type {Error} */ (error).message);
    }
    this.#unanswered -= 1;
  }
}

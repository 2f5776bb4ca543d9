// @ts-check
/** The microphone: asked for when it is switched on, and not before. */

import { SourceError, explain } from './camera.js';

const NO_DEVICES =
  'Browsers lend a microphone only to https:// pages and to localhost, not to this address.';
const NOT_LIVE = 'Press Start first: the microphone goes with the picture.';

/**
 * Open it; the caller stops the track.
 *
 * @returns {Promise<MediaStreamTrack>}
 * @throws {SourceError}
 */
export async function openMicrophone() {
  if (!navigator.mediaDevices) throw new SourceError(NO_DEVICES);
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: false });
    return stream.getAudioTracks()[0];
  } catch (error) {
    const cause = /** @type {DOMException} */ (error);
    throw new SourceError(explain(cause, 'microphone'), { cause });
  }
}

/**
 * Let a button switch it on and off, and show which.
 *
 * @param {HTMLElement} button
 * @param {import('./sdxs-live-element.js').SdxsLiveElement} live
 * @param {(sentence: string) => void} tell
 * @returns {() => Promise<void>} what the button does
 */
export function bindMicrophone(button, live, tell) {
  live.addEventListener('microphone', (event) => {
    button.ariaPressed = String(/** @type {CustomEvent} */ (event).detail.isOn);
  });
  return async () => {
    const isOn = button.ariaPressed === 'true';
    if (!isOn && live.state !== 'live') return tell(NOT_LIVE);
    try {
      await live.setMicrophone(!isOn);
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
      tell(error.message);
    }
  };
}

// A peer on werift, a WebRTC stack in TypeScript that is nobody else's: publishes or watches.
//
//   node werift_peer.mjs FOLDER publish URL PICTURES   until its input ends
//   node werift_peer.mjs FOLDER watch URL COUNT        until it has COUNT pictures
//
// FOLDER has werift in its node_modules. PICTURES is JSON: for each picture its RTP payloads
// in base64. Every line of output is a JSON object with one `event`.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [folder, role, url, what] = process.argv.slice(2);
const werift = createRequire(`${folder}/`)('werift');
const { MediaStreamTrack, RTCPeerConnection, RtpHeader, RtpPacket, useOPUS, useVP8 } = werift;

const FRAME_MS = 33;
const SILENCE = Buffer.from([0xf8, 0xff, 0xfe]); // Opus, 20 ms
const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }));

const pc = new RTCPeerConnection({ codecs: { video: [useVP8()], audio: [useOPUS()] } });
pc.connectionStateChange.subscribe((state) => say('state', { state }));

async function open() {
  await pc.setLocalDescription(await pc.createOffer());
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/sdp' },
    body: pc.localDescription.sdp,
  });
  const answer = await response.text();
  const location = new URL(response.headers.get('Location'), url);
  say('answered', { status: response.status, type: response.headers.get('Content-Type') });
  const connected = pc.connectionStateChange.watch((state) => state === 'connected');
  await pc.setRemoteDescription({ type: 'answer', sdp: answer });
  await connected;
  return location;
}

async function leave(location) {
  const response = await fetch(location, { method: 'DELETE' });
  say('left', { status: response.status });
  await pc.close();
  process.exit(0);
}

function sender(kind, ticks) {
  const track = new MediaStreamTrack({ kind });
  pc.addTransceiver(track, { direction: 'sendonly' });
  let sequenceNumber = 0;
  let timestamp = 0;
  return (payloads) => {
    payloads.forEach((payload, i) => {
      const marker = i === payloads.length - 1;
      const header = new RtpHeader({ payloadType: 96, sequenceNumber, timestamp, marker });
      track.writeRtp(new RtpPacket(header, payload));
      sequenceNumber = (sequenceNumber + 1) & 0xffff;
    });
    timestamp = (timestamp + ticks) >>> 0;
  };
}

async function publish() {
  const pictures = JSON.parse(readFileSync(what, 'utf8')).map((payloads) =>
    payloads.map((payload) => Buffer.from(payload, 'base64')),
  );
  const sendPicture = sender('video', 3000);
  const sendSound = sender('audio', 960);
  const location = await open();
  let number = 0;
  setInterval(() => sendPicture(pictures[number++ % pictures.length]), FRAME_MS);
  setInterval(() => sendSound([SILENCE]), 20);
  process.stdin.on('end', () => leave(location)).resume();
}

async function watch() {
  let location;
  let pictures = 0;
  for (const kind of ['video', 'audio']) {
    const transceiver = pc.addTransceiver(kind, { direction: 'recvonly' });
    transceiver.onTrack.subscribe((track) => {
      track.onReceiveRtp.subscribe(({ header, payload }) => {
        const { marker, timestamp } = header;
        say(kind, { marker, timestamp, payload: payload.toString('base64') });
        if (kind === 'video' && marker && ++pictures === Number(what)) leave(location);
      });
    });
  }
  location = await open();
}

await (role === 'publish' ? publish() : watch());

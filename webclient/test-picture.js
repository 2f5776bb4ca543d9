// @ts-check

/** Draw a moving landscape, for when there is no camera. @param {CanvasRenderingContext2D} ctx */
export function drawTestPicture(ctx, time_s = 0) {
  const { width, height } = ctx.canvas;
  const horizon = height * 0.62;
  const sky = ctx.createLinearGradient(0, 0, 0, horizon);
  sky.addColorStop(0, '#35507f');
  sky.addColorStop(0.6, '#d98a6a');
  sky.addColorStop(1, '#ffd9a0');
  ctx.fillStyle = sky;
  ctx.fillRect(0, 0, width, height);
  fillDisc(ctx, '#fff3c9', width * 0.66, horizon * (0.55 + 0.1 * Math.sin(time_s / 3)), height / 9);
  fillHills(ctx, '#7a5a78', horizon, height * 0.24, 1.3, time_s * 0.05);
  fillHills(ctx, '#4a3f63', horizon, height * 0.13, 2.9, time_s * 0.12);
  ctx.fillStyle = '#2c4a6b';
  ctx.fillRect(0, horizon, width, height - horizon);
  for (let i = 0; i < 26; i++) {
    const depth = (i + 0.5) / 26;
    const x = width * (0.66 + 0.35 * depth * Math.sin(i * 5 + time_s * (1.5 - depth)));
    ctx.fillStyle = i % 2 ? '#ffd9a0' : '#86a3bf';
    const y = horizon + (height - horizon) * depth;
    ctx.fillRect(x - 24 * depth, y, 60 * depth + 8, 2 + 4 * depth);
  }
  const boatX = width * (((0.8 + time_s * 0.06) % 1.3) - 0.15);
  drawBoat(ctx, boatX, horizon + height * 0.12, height * 0.2, time_s);
}

function fillDisc(/** @type {CanvasRenderingContext2D} */ ctx, colour = '', x = 0, y = 0, r = 0) {
  ctx.fillStyle = colour;
  ctx.beginPath();
  ctx.arc(x, y, r, 0, 2 * Math.PI);
  ctx.fill();
}

/** @param {CanvasRenderingContext2D} ctx */
function fillHills(ctx, colour = '', base = 0, rise = 0, waves = 1, phase = 0) {
  const { width } = ctx.canvas;
  ctx.fillStyle = colour;
  ctx.beginPath();
  ctx.moveTo(0, base);
  for (let x = 0; x <= width; x += 8) {
    const a = (x / width) * 2 * Math.PI * waves + phase * 6;
    ctx.lineTo(x, base - rise * (0.55 + 0.3 * Math.sin(a) + 0.15 * Math.sin(2.7 * a)));
  }
  ctx.lineTo(width, base);
  ctx.fill();
}

/** @param {CanvasRenderingContext2D} ctx */
function drawBoat(ctx, x = 0, y = 0, size = 0, time_s = 0) {
  ctx.save();
  ctx.translate(x, y + size * 0.04 * Math.sin(time_s * 2));
  ctx.rotate(0.06 * Math.sin(time_s * 1.7));
  ctx.scale(size, size);
  ctx.fillStyle = '#f6efe2';
  ctx.fill(new Path2D('M0 -1.5 L0.75 -0.15 L0 -0.15 Z'));
  ctx.fillStyle = '#e2574c';
  ctx.fill(new Path2D('M-0.06 -1.35 L-0.06 -0.15 L-0.55 -0.15 Z'));
  ctx.fillStyle = '#5b2f2a';
  ctx.fill(new Path2D('M-0.75 0 L0.85 0 L0.55 0.3 L-0.5 0.3 Z'));
  ctx.restore();
}

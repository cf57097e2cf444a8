// Red, green and blue of what is shown as areas, the photo before as a line; and the four attributes as numbers.

const BINS = 64;

/** RGBA bytes -> {counts: three rows of 64, black, white: shares of pixels}; transparent ones are not counted. */
export function count(pixels) {
  const counts = [0, 1, 2].map(() => new Uint32Array(BINS));
  let black = 0, white = 0, all = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    if (!pixels[i + 3]) continue;
    const [r, g, b] = [pixels[i], pixels[i + 1], pixels[i + 2]];
    counts[0][r >> 2]++;
    counts[1][g >> 2]++;
    counts[2][b >> 2]++;
    if ((r | g | b) === 0) black++;
    if ((r & g & b) === 255) white++;
    all++;
  }
  return { counts, black: all ? black / all : 0, white: all ? white / all : 0 };
}

/** Heights are square roots, so that a few pixels can be seen too. */
export function drawHistogram(figure, before, after) {
  const canvas = figure.querySelector('canvas'), context = canvas.getContext('2d'), { width, height } = canvas;
  const style = getComputedStyle(figure), earlier = before.counts[0].map((v, k) => (v + before.counts[1][k] + before.counts[2][k]) / 3);
  const sorted = after.counts.flatMap((row) => [...row]).sort((a, b) => b - a);
  const top = Math.sqrt(Math.max(sorted[3], ...earlier, 1)); // one full bin alone does not flatten the rest
  const y = (v) => height - Math.min(Math.sqrt(v) / top, 1) * (height - 3);
  const line = (row) => {
    context.beginPath();
    row.forEach((v, k) => context.lineTo((k * width) / (BINS - 1), y(v)));
  };
  context.clearRect(0, 0, width, height);
  context.globalCompositeOperation = style.getPropertyValue('--mix').trim() || 'lighter';
  for (const [k, colour] of ['--red', '--green', '--blue'].entries()) {
    line(after.counts[k]);
    context.lineTo(width, height);
    context.lineTo(0, height);
    context.fillStyle = style.getPropertyValue(colour).trim();
    context.fill();
  }
  context.globalCompositeOperation = 'source-over';
  line(earlier);
  context.strokeStyle = style.getPropertyValue('--quiet').trim();
  context.lineWidth = 1.5;
  context.stroke();
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  figure.querySelector('#blacks').textContent = `black ${percent(after.black)}`;
  figure.querySelector('#whites').textContent = `white ${percent(after.white)}`;
  canvas.setAttribute('aria-label', `Histogram of the result; ${percent(after.black)} black, ${percent(after.white)} white`);
}

/** The four attributes of RGBA bytes, as `diffretouch.measure_attributes` has them of a copy of 128 pixels. */
export function measure(pixels, width, height) {
  const n = width * height, opponents = [[], []], mean = [0, 0, 0];
  let steps = 0;
  const at = (i, k) => pixels[4 * i + k] / 255;
  for (let i = 0; i < n; i++) {
    const rgb = [at(i, 0), at(i, 1), at(i, 2)];
    rgb.forEach((v, k) => { mean[k] += v / n; });
    opponents[0].push(Math.abs(rgb[0] - rgb[1]));
    opponents[1].push(Math.abs(0.5 * (rgb[0] + rgb[1]) - rgb[2]));
    for (let k = 0; k < 3; k++) {
      if ((i + 1) % width) steps += (at(i + 1, k) - rgb[k]) ** 2;
      if (i + width < n) steps += (at(i + width, k) - rgb[k]) ** 2;
    }
  }
  const means = opponents.map((row) => row.reduce((a, b) => a + b) / n);
  const spread = opponents.reduce((sum, row, k) => sum + row.reduce((a, v) => a + (v - means[k]) ** 2, 0) / Math.max(n - 1, 1), 0);
  const pairs = (height - 1) * width + height * (width - 1);
  return [
    Math.sqrt(spread + 1e-12) + 0.3 * Math.hypot(...means),
    steps / Math.max(pairs, 1),
    (mean[0] - mean[2]) / (mean[0] + mean[2] + 0.02),
    0.299 * mean[0] + 0.587 * mean[1] + 0.114 * mean[2],
  ];
}

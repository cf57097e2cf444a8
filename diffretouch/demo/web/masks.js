// Painted areas: a mask of bytes, strokes of a round soft brush, and edges that follow the photo's.
import { newId } from './state.js';

const LONG_SIDE = 1024, REFINE_SIDE = 512;

export function newMask(width, height, data = new Uint8Array(width * height)) {
  return { id: newId(), width, height, data };
}

/** An empty mask for a photo. */
export function maskFor({ width, height }) {
  const ratio = Math.min(LONG_SIDE / Math.max(width, height), 1);
  return newMask(Math.max(Math.round(width * ratio), 1), Math.max(Math.round(height * ratio), 1));
}

/** A stroke on a copy of a mask, so that the mask before it can come back. */
export class Stroke {
  constructor(mask, { radius, hardness, erase }) {
    this.mask = newMask(mask.width, mask.height, mask.data.slice());
    Object.assign(this, { radius: Math.max(radius, 0.5), hardness, erase, last: null });
  }

  /** Go on to a place (in the mask's pixels); returns the box that changed: [x, y, width, height]. */
  to(x, y) {
    const [fromX, fromY] = this.last ?? [x, y], far = Math.hypot(x - fromX, y - fromY);
    const steps = Math.max(Math.ceil(far / Math.max(this.radius / 4, 0.5)), 1);
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = this.last ? 1 : 0; i <= steps; i++) {
      this._stamp(fromX + ((x - fromX) * i) / steps, fromY + ((y - fromY) * i) / steps, box);
    }
    this.last = [x, y];
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]];
  }

  _stamp(x, y, box) {
    const { width, height, data } = this.mask, r = this.radius, core = r * this.hardness;
    const left = Math.max(Math.floor(x - r), 0), right = Math.min(Math.ceil(x + r) + 1, width);
    const top = Math.max(Math.floor(y - r), 0), bottom = Math.min(Math.ceil(y + r) + 1, height);
    if (left >= right || top >= bottom) return;
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y);
        if (distance >= r) continue;
        const t = distance <= core ? 1 : (r - distance) / (r - core), inside = Math.round(255 * t * t * (3 - 2 * t));
        const i = row * width + column;
        data[i] = this.erase ? Math.min(data[i], 255 - inside) : Math.max(data[i], inside);
      }
    }
    box[0] = Math.min(box[0], left);
    box[1] = Math.min(box[1], top);
    box[2] = Math.max(box[2], right);
    box[3] = Math.max(box[3], bottom);
  }
}

/** A mask as a PNG data URL of greys, white inside. */
export async function toPng({ width, height, data }) {
  const canvas = new OffscreenCanvas(width, height), pixels = new ImageData(width, height);
  for (let i = 0; i < data.length; i++) pixels.data.set([data[i], data[i], data[i], 255], 4 * i);
  canvas.getContext('2d').putImageData(pixels, 0, 0);
  const blob = await canvas.convertToBlob({ type: 'image/png' });
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
  });
}

/** A picture file as a mask for a photo: greys, white inside, or its transparency. -> {mask, note}. */
export async function fromPicture(blob, name, photo) {
  const bitmap = await createImageBitmap(blob).catch(() => { throw new Error(`${name} cannot be read as a picture.`); });
  const mask = maskFor(photo), context = new OffscreenCanvas(mask.width, mask.height).getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, mask.width, mask.height);
  const { data } = context.getImageData(0, 0, mask.width, mask.height);
  let transparent = false, grey = true, varied = false;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] < 255) transparent = true;
    if (data[i + 3] && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 5) grey = false;
    if (data[i + 3] && data[i] !== data[0]) varied = true;
  }
  if (!grey) throw new Error(`${name} is no mask: it has colours. White is inside, black outside.`);
  if (transparent && varied) throw new Error(`${name} is a mask in two ways, by its grey and by its transparency.`);
  for (let i = 0; i < mask.data.length; i++) mask.data[i] = data[4 * i + (transparent ? 3 : 0)];
  const ratio = bitmap.width / bitmap.height / (photo.width / photo.height);
  const note = ratio > 0.8 && ratio < 1.25 ? '' : `The mask has another shape (${bitmap.width} × ${bitmap.height}) than `
    + `the photo (${photo.width} × ${photo.height}): it was stretched.`;
  return { mask, note };
}

/** A mask whose edges fall on the photo's: the guided filter (He et al. 2013), three channels. `picture`: {pixels, width, height}, RGBA bytes of any size. */
export function refine(mask, picture) {
  const ratio = Math.min(REFINE_SIDE / Math.max(mask.width, mask.height), 1);
  const w = Math.max(Math.round(mask.width * ratio), 1), h = Math.max(Math.round(mask.height * ratio), 1), n = w * h;
  const guide = [0, 1, 2].map(() => new Float64Array(n)), values = new Float64Array(n);
  for (let y = 0, i = 0; y < h; y++) {
    for (let x = 0; x < w; x++, i++) {
      const at = 4 * (Math.floor(((y + 0.5) * picture.height) / h) * picture.width + Math.floor(((x + 0.5) * picture.width) / w));
      for (let k = 0; k < 3; k++) guide[k][i] = picture.pixels[at + k] / 255;
      values[i] = mask.data[Math.floor(((y + 0.5) * mask.height) / h) * mask.width + Math.floor(((x + 0.5) * mask.width) / w)] / 255;
    }
  }
  const radius = Math.max(Math.round(0.02 * Math.max(w, h)), 1), epsilon = 1e-3;
  const mean = (x) => boxMean(x, w, h, radius), times = (a, b) => a.map((v, i) => v * b[i]);
  const m = guide.map(mean), v = mean(values), pairs = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]];
  const covariance = pairs.map(([a, b]) => mean(times(guide[a], guide[b])).map((x, i) => x - m[a][i] * m[b][i]));
  const crossed = guide.map((g, k) => mean(times(g, values)).map((x, i) => x - m[k][i] * v[i]));
  const slope = [0, 1, 2].map(() => new Float64Array(n)), offset = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const [a, b, c, d, e, f] = covariance.map((x) => x[i]), [p, q, r] = crossed.map((x) => x[i]);
    const A = a + epsilon, D = d + epsilon, F = f + epsilon;
    const c0 = D * F - e * e, c1 = c * e - b * F, c2 = b * e - c * D, determinant = A * c0 + b * c1 + c * c2;
    const s = [
      (c0 * p + c1 * q + c2 * r) / determinant,
      (c1 * p + (A * F - c * c) * q + (b * c - A * e) * r) / determinant,
      (c2 * p + (b * c - A * e) * q + (A * D - b * b) * r) / determinant,
    ];
    for (let k = 0; k < 3; k++) slope[k][i] = s[k];
    offset[i] = v[i] - s[0] * m[0][i] - s[1] * m[1][i] - s[2] * m[2][i];
  }
  const steep = slope.map(mean), base = mean(offset), result = newMask(w, h);
  for (let i = 0; i < n; i++) {
    const value = base[i] + steep[0][i] * guide[0][i] + steep[1][i] * guide[1][i] + steep[2][i] * guide[2][i];
    result.data[i] = Math.round(255 * Math.min(Math.max(value, 0), 1));
  }
  return resized(result, mask.width, mask.height);
}

function resized(mask, width, height) {
  if (mask.width === width && mask.height === height) return mask;
  const result = newMask(width, height);
  for (let y = 0, i = 0; y < height; y++) {
    const v = Math.min(Math.max(((y + 0.5) * mask.height) / height - 0.5, 0), mask.height - 1), y0 = Math.floor(v), y1 = Math.min(y0 + 1, mask.height - 1);
    for (let x = 0; x < width; x++, i++) {
      const u = Math.min(Math.max(((x + 0.5) * mask.width) / width - 0.5, 0), mask.width - 1), x0 = Math.floor(u), x1 = Math.min(x0 + 1, mask.width - 1);
      const above = mask.data[y0 * mask.width + x0] * (1 - u + x0) + mask.data[y0 * mask.width + x1] * (u - x0);
      const below = mask.data[y1 * mask.width + x0] * (1 - u + x0) + mask.data[y1 * mask.width + x1] * (u - x0);
      result.data[i] = Math.round(above + (v - y0) * (below - above));
    }
  }
  return result;
}

/** The mean over windows of the side 2 radius + 1 that are cut at the border, by running sums. */
function boxMean(x, w, h, radius) {
  const rows = new Float64Array(w * h), out = new Float64Array(w * h);
  run(x, rows, h, w, w, 1);
  run(rows, out, w, h, 1, w);
  return out;
  function run(from, to, lines, length, stride, step) {
    for (let line = 0; line < lines; line++) {
      const start = line * stride;
      let sum = 0, count = 0;
      for (let i = 0; i < Math.min(radius, length); i++) { sum += from[start + i * step]; count++; }
      for (let i = 0; i < length; i++) {
        if (i + radius < length) { sum += from[start + (i + radius) * step]; count++; }
        if (i - radius - 1 >= 0) { sum -= from[start + (i - radius - 1) * step]; count--; }
        to[start + i * step] = sum / count;
      }
    }
  }
}

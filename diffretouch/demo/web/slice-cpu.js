// The same picture as `slice.js` makes, without WebGL 2: by the processor, pixel by pixel. Slow, but right.

/** The interface of `Slicer`. The view's quality is lowered while something moves, so that it stays usable. */
export class CpuSlicer {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.lost = false;
    this.wide = false;
    this.look = { mode: 'photo', strength: 1, areas: [] };
    this.sources = {};
  }

  setPhoto(source, name = 'photo') {
    this.sources[name] = source;
    this.sampled = null;
    if (name === 'photo') Object.assign(this, { alpha: !!source?.alpha }).sources.other = null;
    this.size = this.sources.photo && [this.sources.photo.width, this.sources.photo.height];
  }

  setGuide(guide) { this.guide = guide; }
  setLook(look) { this.look = { areas: [], strength: 1, ...look }; }
  setTable(table) { this.table = table; }
  touchMask() {}
  finish() {}

  draw(view, options = {}) {
    const { width, height } = this.canvas;
    if (!this.size) return;
    const key = [view.x, view.y, view.step, width, height].join();
    if (this.sampled?.key !== key) {
      this.sampled = { key, photo: this._sample('photo', view, width, height), other: this._sample('other', view, width, height) };
    }
    const pixels = this._retouch(this.sampled, view, width, height, options);
    this.context.putImageData(new ImageData(pixels, width, height), 0, 0);
    if (this.alpha) this._squares(view);
  }

  /** What is transparent lies over squares. */
  _squares(view) {
    const { context, size: [w, h] } = this, tile = new OffscreenCanvas(20, 20), paint = tile.getContext('2d');
    for (const [colour, places] of [['#8c8c8c', [0, 10, 10, 0]], ['#ccc', [0, 0, 10, 10]]]) {
      paint.fillStyle = colour;
      for (let k = 0; k < 4; k += 2) paint.fillRect(places[k], places[k + 1], 10, 10);
    }
    context.save();
    Object.assign(context, { globalCompositeOperation: 'destination-over', fillStyle: context.createPattern(tile, 'repeat') });
    context.fillRect(-view.x / view.step, -view.y / view.step, w / view.step, h / view.step);
    context.restore();
  }

  render(view, width, height, { plain = false } = {}) {
    const sampled = { photo: this._sample('photo', view, width, height), other: this._sample('other', view, width, height) };
    return this._retouch(sampled, view, width, height, { split: plain ? 1e9 : 0 });
  }

  _sample(name, view, width, height) {
    const source = this.sources[name];
    if (!source) return null;
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext('2d', { willReadFrequently: true });
    context.imageSmoothingEnabled = view.step > 1;
    context.imageSmoothingQuality = 'high';
    context.setTransform(1 / view.step, 0, 0, 1 / view.step, -view.x / view.step, -view.y / view.step);
    context.drawImage(source.image(), 0, 0);
    return context.getImageData(0, 0, width, height).data;
  }

  _retouch({ photo, other }, view, width, height, { split = 0, clipping = false, overlay = -1 }) {
    const out = new Uint8ClampedArray(photo), { mode, strength, areas } = this.look, [W, H] = this.size;
    const lay = mode === 'grids' ? retouched(this.look.grids, this.look.shape, this.look.shoulder) : [];
    const whole = (this.sources.photo.bits ?? 8) === 8; // every sheet that is laid over an 8-bit photo ends at black and white
    const p = [0, 0, 0], shown = [0, 0, 0], above = [0, 0, 0];
    for (let row = 0, i = 0; row < height; row++) {
      const y = view.y + (row + 0.5) * view.step;
      for (let column = 0; column < width; column++, i += 4) {
        const x = view.x + (column + 0.5) * view.step;
        if (x < 0 || y < 0 || x > W || y > H) { out[i + 3] = 0; continue; }
        if (!this.alpha) out[i + 3] = 255;
        if (column < split) continue;
        for (let k = 0; k < 3; k++) shown[k] = p[k] = photo[i + k] / 255;
        if (mode === 'grids' && lay.length) {
          const guide = guideAt(this.guide, p), u = W > 1 ? (x - 0.5) / (W - 1) : 0.5, v = H > 1 ? (y - 0.5) / (H - 1) : 0.5;
          lay[0](p, u, v, guide, strength, shown);
          if (whole && areas.length) limit(shown);
          for (let a = 0; a < areas.length; a++) {
            const mask = inside(areas[a], p, x / W, y / H);
            if (mask <= 0) continue;
            lay[a + 1](p, u, v, guide, strength, above);
            if (whole) limit(above);
            for (let k = 0; k < 3; k++) shown[k] += mask * (above[k] - shown[k]);
          }
        } else if (mode === 'other' && other) {
          for (let k = 0; k < 3; k++) shown[k] += strength * (other[i + k] / 255 - p[k]);
        } else if (mode === 'table' && this.table) {
          lookUp(this.table, p, above);
          for (let k = 0; k < 3; k++) shown[k] += strength * (above[k] - p[k]);
        }
        for (let k = 0; k < 3; k++) out[i + k] = Math.round(255 * shown[k]);
        if (overlay >= 0 && mode === 'grids' && areas[overlay]) {
          const mask = 0.55 * inside(areas[overlay], p, x / W, y / H);
          [255, 51, 51].forEach((red, k) => { out[i + k] += mask * (red - out[i + k]); });
        }
        if (clipping && Math.max(...shown) > 254.5 / 255) out.set([255, 38, 26], i);
        if (clipping && Math.max(...shown) < 0.5 / 255) out.set([38, 77, 255], i);
      }
    }
    return out;
  }
}

/** For each grid what makes a pixel of it: (colour, place u and v, guide, strength, out). */
export function retouched(grids, shape, shoulder) {
  const volume = shape[1] * shape[2] * shape[3], weights = new Float32Array(8), places = new Int32Array(8);
  return grids.map((grid) => (p, u, v, guide, strength, out) => {
    placeIn(shape, u, v, guide, places, weights);
    for (let k = 0; k < 3; k++) {
      let value = 0;
      for (let input = 0; input < 4; input++) {
        const from = (4 * k + input) * volume;
        let coefficient = 0;
        for (let n = 0; n < 8; n++) coefficient += weights[n] * grid[from + places[n]];
        value += coefficient * (input < 3 ? p[input] : 1);
      }
      out[k] = rolledOff(p[k] + strength * (value - p[k]), p[k], shoulder);
    }
  });
}

/** What a pixel's channel `x` becomes, with a soft end of the range: see `roll_off` in Python. */
function rolledOff(y, x, shoulder) {
  const up = y > x, room = Math.max((up ? 1 - x : x) - 1 / 255, 0), moved = Math.abs(y - x), rest = 1 - shoulder;
  if (!shoulder || !(moved > shoulder * room)) return y;
  const taken = room * (1 - rest * rest * room / (moved + (rest - shoulder) * room));
  return up ? x + taken : x - taken;
}

/** A pixel's guide by the curve of `/api/about`. */
export function guideAt({ matrix, matrix_bias, thresholds, slopes, bias }, p) {
  let sum = 0;
  for (let j = 0; j < 3; j++) {
    const y = p[0] * matrix[0][j] + p[1] * matrix[1][j] + p[2] * matrix[2][j] + matrix_bias[j];
    const t = thresholds[j], s = slopes[j];
    for (let k = 0; k < t.length; k++) if (y > t[k]) sum += s[k] * (y - t[k]);
  }
  return Math.min(Math.max(sum / 3 + bias, 0), 1);
}

/** The eight cells of a grid around a place, and their weights, from the position `at` of two arrays on. */
export function placeIn([, depth, height, width], u, v, guide, places, weights, at = 0) {
  const cell = (place, cells) => {
    const position = Math.min(Math.max(place * cells - 0.5, 0), cells - 1), first = Math.min(Math.floor(position), Math.max(cells - 2, 0));
    return [first, position - first];
  };
  const [x, fx] = cell(u, width), [y, fy] = cell(v, height), [z, fz] = cell(guide, depth);
  for (let n = 0; n < 8; n++) {
    const dx = n & 1, dy = (n >> 1) & 1, dz = n >> 2;
    weights[at + n] = (dx ? fx : 1 - fx) * (dy ? fy : 1 - fy) * (dz ? fz : 1 - fz);
    places[at + n] = (Math.min(z + dz, depth - 1) * height + Math.min(y + dy, height - 1)) * width + Math.min(x + dx, width - 1);
  }
}

function limit(v) {
  for (let k = 0; k < 3; k++) v[k] = Math.min(Math.max(v[k], 0), 1);
}

function ramp(distance, width) {
  if (width <= 0) return distance <= 0 ? 1 : 0;
  const t = Math.min(Math.max(1 - distance / width, 0), 1);
  return t * t * (3 - 2 * t);
}

/** How far a pixel lies in an area, 0 to 1; u, v: its place in the photo. */
export function inside(area, p, u, v) {
  let mask;
  if (area.kind === 'tone') {
    const luma = 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
    mask = ramp(Math.max(area.low - luma, luma - area.high), area.softness);
  } else if (area.kind === 'colour') {
    const most = Math.max(p[0], p[1], p[2]), chroma = most - Math.min(p[0], p[1], p[2]), scale = 60 / Math.max(chroma, 1e-6);
    const hue = most === p[0] ? (p[1] - p[2]) * scale : most === p[1] ? 120 + (p[2] - p[0]) * scale : 240 + (p[0] - p[1]) * scale;
    const round = (degrees) => ((degrees % 360) + 360) % 360, reach = (round(area.high - area.low) || 360) / 2;
    const far = Math.abs(round(hue - area.low - reach + 180) - 180) - reach;
    mask = ramp(far, area.softness) * ramp(0.12 - chroma, 0.08);
  } else {
    const { width, height, data } = area.mask;
    mask = data[Math.min(Math.floor(v * height), height - 1) * width + Math.min(Math.floor(u * width), width - 1)] / 255;
  }
  return area.invert ? 1 - mask : mask;
}

function lookUp({ size, data, low, high }, p, out) { // trilinear
  const cells = p.map((v, k) => {
    const at = Math.min(Math.max((v - low[k]) / (high[k] - low[k]), 0), 1) * (size - 1), first = Math.min(Math.floor(at), size - 2);
    return [first, at - first];
  });
  out.fill(0);
  for (let n = 0; n < 8; n++) {
    let weight = 1, place = 0;
    for (let k = 0; k < 3; k++) {
      const far = (n >> k) & 1;
      weight *= far ? cells[k][1] : 1 - cells[k][1];
      place += (cells[k][0] + far) * size ** k;
    }
    for (let k = 0; k < 3; k++) out[k] += weight * data[3 * place + k];
  }
}

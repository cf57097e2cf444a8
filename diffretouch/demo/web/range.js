// Grids held in the range of what can be shown, as `AffineGridHead.keep_in_range` does it: the whole photo's on the whole
// photo, an area's where the area is. Judged on the small copy of the photo that the model sees.
import { guideAt, inside, placeIn } from './slice-cpu.js';

/** What of a photo decides how far its grids are squeezed. */
export class Range {
  /** `seen`: {data: three planes of floats, width, height}; `share` of the pixels that may lie outside, for each end. */
  constructor(seen, guide, shape, share) {
    const { data, width, height } = seen, n = width * height, [, depth, rows, columns] = shape;
    Object.assign(this, { data, width, height, n, share, volume: depth * rows * columns });
    this.places = new Int32Array(8 * n);
    this.weights = new Float64Array(8 * n);
    const p = [0, 0, 0];
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        for (let k = 0; k < 3; k++) p[k] = data[k * n + i];
        const u = width > 1 ? x / (width - 1) : 0.5, v = height > 1 ? y / (height - 1) : 0.5;
        placeIn(shape, u, v, guideAt(guide, p), this.places, this.weights, 8 * i);
      }
    }
  }

  /** A grid, squeezed just so far that it clips little; `counts` (of `insideOf`): only pixels where it is 1, or all. */
  keep(grid, counts = null) {
    const { dark, light } = this._ends(grid, counts);
    return this._squeezed(grid, dark, light);
  }

  /** The least and the most that the channels of each pixel become. */
  _ends(grid, counts) {
    const { data, n, places, weights, volume } = this, dark = new Float64Array(n), light = new Float64Array(n);
    let used = 0;
    const all = !counts?.includes(1);
    for (let i = 0; i < n; i++) {
      if (!all && !counts[i]) continue;
      let least = Infinity, most = -Infinity;
      for (let k = 0; k < 3; k++) {
        let value = 0;
        for (let input = 0; input < 4; input++) {
          const from = (4 * k + input) * volume;
          let coefficient = 0;
          for (let j = 8 * i; j < 8 * i + 8; j++) coefficient += weights[j] * grid[from + places[j]];
          value += coefficient * (input < 3 ? data[input * n + i] : 1);
        }
        const plain = data[k * n + i]; // what the photo has at an end of its own range may stay there
        least = Math.min(least, plain < 0.5 / 255 ? 1 : value);
        most = Math.max(most, plain > 254.5 / 255 ? 0 : value);
      }
      dark[used] = least;
      light[used++] = most;
    }
    return { dark: dark.subarray(0, used), light: light.subarray(0, used) };
  }

  _squeezed(grid, dark, light) {
    const { volume } = this;
    const darkest = Math.min(quantile(dark, this.share), 0);
    const lightest = Math.max(quantile(light, 1 - this.share), 1);
    if (darkest === 0 && lightest === 1) return grid;
    const scale = 1 / (lightest - darkest), kept = grid.map((v) => v * scale);
    for (let k = 0; k < 3; k++) {
      const from = (4 * k + 3) * volume;
      for (let i = from; i < from + volume; i++) kept[i] -= scale * darkest;
    }
    return kept;
  }
}

function quantile(values, q) { // as numpy's and torch's: straight between the two that are next to it
  values.sort();
  const at = q * (values.length - 1), first = Math.floor(at), next = Math.min(first + 1, values.length - 1);
  return values[first] + (at - first) * (values[next] - values[first]);
}

/** Where an area counts in a small copy: bytes 0 or 1. A painted one's is found at once, others' by `measureArea`. */
export function insideOf(area, photo, { width, height }) {
  const mean = area.kind === 'paint' ? shrunk(area.mask, width, height) : photo.means?.get(rangeKey(area, width, height));
  // A tie is not left to rounding: see the library
  return mean ? Uint8Array.from(mean, (v) => ((area.invert ? 1 - v : v) > 0.5001 ? 1 : 0)) : null;
}

const rangeKey = ({ kind, low, high, softness }, width, height) => [kind, low, high, softness, width, height].join();

/** The mean mask of an area by tone or colour, found pixel by pixel in the whole photo; remembered at the photo. */
export async function measureArea(area, photo, { width, height }) {
  photo.means ??= new Map();
  const key = rangeKey(area, width, height), { source } = photo;
  if (photo.means.has(key)) return;
  const across = taps(source.width, width), down = taps(source.height, height), plain = { ...area, invert: false };
  const mean = new Float64Array(width * height), line = new Float64Array(source.width), p = [0, 0, 0];
  const strip = Math.max(Math.min(Math.ceil(2e6 / source.width), source.height), 1);
  for (let top = 0; top < source.height; top += strip) {
    const rows = Math.min(strip, source.height - top), bytes = source.read(0, top, source.width, rows, 'srgb');
    for (let row = 0, i = 0; row < rows; row++) {
      for (let x = 0; x < source.width; x++, i += 4) {
        for (let k = 0; k < 3; k++) p[k] = bytes[i + k] / 255;
        line[x] = inside(plain, p, 0, 0);
      }
      for (const [to, weight] of down.of(top + row)) across.add(line, mean, to * width, weight);
    }
    await new Promise((done) => setTimeout(done)); // the hand comes first
  }
  if (photo.means.size > 60) photo.means.clear();
  photo.means.set(key, mean);
}

const shrunkMasks = new WeakMap();

function shrunk(mask, width, height) {
  const known = shrunkMasks.get(mask);
  if (known?.width === width && known.height === height) return known.mean;
  const across = taps(mask.width, width), down = taps(mask.height, height), mean = new Float64Array(width * height);
  for (let y = 0; y < mask.height; y++) {
    const line = mask.data.subarray(y * mask.width, (y + 1) * mask.width);
    for (const [to, weight] of down.of(y)) across.add(line, mean, to * width, weight / 255);
  }
  shrunkMasks.set(mask, { width, height, mean });
  return mean;
}

/** Weights of the antialiased bilinear resize along one axis, as `torch.nn.functional.interpolate` has them. */
function taps(from, to) {
  const scale = from / to, reach = Math.max(scale, 1), into = Array.from({ length: from }, () => []);
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale, first = Math.max(Math.floor(centre - reach + 0.5), 0), end = Math.min(Math.floor(centre + reach + 0.5), from);
    const own = [];
    for (let k = first; k < end; k++) own.push(Math.max(1 - Math.abs((k + 0.5 - centre) / reach), 0));
    const sum = own.reduce((a, b) => a + b);
    own.forEach((weight, k) => { if (weight) into[first + k].push([i, weight / sum]); });
  }
  const starts = new Int32Array(from + 1), places = [], weights = [];
  for (const [k, pairs] of into.entries()) {
    for (const [i, weight] of pairs) { places.push(i); weights.push(weight); }
    starts[k + 1] = places.length;
  }
  return {
    of: (k) => into[k],
    add(line, out, at, factor) {
      for (let k = 0; k < from; k++) {
        if (line[k] === 0) continue;
        const value = line[k] * factor;
        for (let j = starts[k]; j < starts[k + 1]; j++) out[at + places[j]] += value * weights[j];
      }
    },
  };
}

// A look as the colour table that comes closest to it on a photo, as `bake_lut` in Python finds it.
import { retouched } from './slice-cpu.js';

/** What a grid does to colours wherever they are: of its mean over the places. */
export function meanColours(grid, [, depth, rows, columns], guide, shoulder, strength) {
  const mean = new Float32Array(12 * depth), plane = rows * columns;
  for (let i = 0; i < mean.length; i++) for (let j = i * plane; j < (i + 1) * plane; j++) mean[i] += grid[j] / plane;
  const retouch = retouched([mean], [12, depth, 1, 1], shoulder)[0];
  return (p, out) => retouch(p, 0.5, 0.5, guide(p), strength, out);
}

/**
 * The table that takes the colours of `before` closest to `after` (RGBA bytes, pixel by pixel): least squares over its
 * nodes, smooth where the photo has no colours, as `fit_table` in Python does it. -> the mean error in levels.
 */
export async function fit(table, before, after) {
  const { size, data } = table, n = before.length / 4, strides = [1, size, size * size];
  const nodes = new Int32Array(4 * n), weights = new Float32Array(4 * n), missing = new Float32Array(3 * n);
  const right = new Float64Array(data.length), diagonal = new Float64Array(size ** 3).fill(6 * 0.3 + 1e-3);
  for (let i = 0; i < n; i++) {
    const cells = [0, 1, 2].map((k) => {
      const at = (before[4 * i + k] / 255) * (size - 1), first = Math.min(Math.floor(at), size - 2);
      return [at - first, strides[k], first * strides[k]];
    });
    const sorted = [...cells].sort((a, b) => b[0] - a[0]);
    let node = cells[0][2] + cells[1][2] + cells[2][2];
    for (let j = 0; j < 4; j++) {
      nodes[4 * i + j] = node;
      weights[4 * i + j] = (j ? sorted[j - 1][0] : 1) - (j < 3 ? sorted[j][0] : 0);
      if (j < 3) node += sorted[j][1];
    }
  }
  const off = (of, k, i) => {
    let sum = 0;
    for (let j = 4 * i; j < 4 * i + 4; j++) sum += weights[j] * of[3 * nodes[j] + k];
    return sum;
  };
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < 3; k++) missing[3 * i + k] = after[4 * i + k] / 255 - off(data, k, i);
    for (let j = 4 * i; j < 4 * i + 4; j++) {
      diagonal[nodes[j]] += weights[j] ** 2;
      for (let k = 0; k < 3; k++) right[3 * nodes[j] + k] += weights[j] * missing[3 * i + k];
    }
  }
  const moved = new Float64Array(data.length), applied = (d) => { // d -> what it changes, smoothness and pull
    for (let i = 0; i < moved.length; i++) moved[i] = 1e-3 * d[i];
    for (const stride of strides) {
      for (let i = 0; i < size ** 3; i++) {
        if (Math.floor(i / stride) % size === size - 1) continue;
        for (let k = 3 * i, far = 3 * (i + stride), end = k + 3; k < end; k++, far++) {
          const step = 0.3 * (d[far] - d[k]);
          moved[far] += step;
          moved[k] -= step;
        }
      }
    }
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < 3; k++) {
        const value = off(d, k, i);
        for (let j = 4 * i; j < 4 * i + 4; j++) moved[3 * nodes[j] + k] += weights[j] * value;
      }
    }
    return moved;
  };
  const d = await conjugate(applied, right, diagonal);
  for (let i = 0; i < data.length; i++) data[i] += d[i];
  let error = 0;
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < 3; k++) error += Math.abs(Math.min(Math.max(off(data, k, i), 0), 1) - after[4 * i + k] / 255);
  }
  return (255 * error) / (3 * n);
}

/** Conjugate gradients, red, green and blue each on their own; the page goes on meanwhile. */
async function conjugate(applied, right, diagonal) {
  const d = new Float64Array(right.length), rest = right.slice(), direction = rest.map((v, i) => v / diagonal[Math.floor(i / 3)]);
  const products = (a, b) => a.reduce((sum, v, i) => { sum[i % 3] += v * b[i]; return sum; }, [0, 0, 0]);
  let product = products(rest, direction);
  const first = product.map((v) => Math.max(v, 1e-30));
  for (let turn = 0; turn < 400 && !product.every((v, k) => v <= 1e-8 * first[k]); turn++) {
    if (turn % 8 === 0) await new Promise((done) => setTimeout(done));
    const moved = applied(direction), along = products(direction, moved), step = product.map((v, k) => v / Math.max(along[k], 1e-30));
    for (let i = 0; i < d.length; i++) {
      d[i] += step[i % 3] * direction[i];
      rest[i] -= step[i % 3] * moved[i];
    }
    const ahead = rest.map((v, i) => v / diagonal[Math.floor(i / 3)]), next = products(rest, ahead);
    const share = next.map((v, k) => v / Math.max(product[k], 1e-30));
    for (let i = 0; i < d.length; i++) direction[i] = ahead[i] + share[i % 3] * direction[i];
    product = next;
  }
  return d;
}

// Grids at any c from grids at a few: polyharmonic splines, |c - point|^3 and a linear polynomial (Duchon 1977).
// The same points and weights as `diffretouch/sliders.py`.

/** Where grids are sampled, in batches, the centre first: 25 points of four numbers. */
export function sliderPoints() {
  const axes = [], odd = [], even = [];
  for (let sign = 1; sign >= -1; sign -= 2) {
    for (let k = 0; k < 4; k++) axes.push([0, 1, 2, 3].map((i) => (i === k ? sign : 0)));
  }
  for (let bits = 0; bits < 16; bits++) {
    const corner = [3, 2, 1, 0].map((k) => ((bits >> k) & 1 ? 1 : -1));
    const product = corner.reduce((a, b) => a * b);
    if (product < 0) odd.push(corner.map((v) => v / 2));
    else even.push(corner);
  }
  return [[[0, 0, 0, 0]], axes, odd, even];
}

const cube = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]) ** 3;

/** The grids of one photo, model and noise, as they arrive; `at(c)` answers from those that are there. */
export class GridField {
  constructor() {
    this.points = [];
    this.grids = []; // Float32Array each
    this.shape = null; // [12, D, gh, gw]
    this.exact = new Map(); // c as text -> grid, as the model gave it
    this._inverse = null;
  }

  add(points, grids) {
    for (const [i, point] of points.entries()) {
      this.points.push(point);
      this.grids.push(grids[i]);
      this.keep(point, grids[i]);
    }
    this._inverse = null;
  }

  keep(c, grid) {
    if (this.exact.size > 120) this.exact.delete(this.exact.keys().next().value);
    this.exact.set(String(c), grid);
  }

  known(c) {
    return this.exact.get(String(c));
  }

  /** c (4 numbers) -> a grid, or null where nothing has arrived. */
  at(c) {
    const known = this.known(c);
    if (known) return known;
    if (!this.points.length) return this.exact.size ? [...this.exact.values()].at(-1) : null;
    const reach = Math.max(1, ...c.map(Math.abs));
    const inside = c.map((v) => v / reach);
    let weights = this.weights(inside);
    if (reach > 1) { // beyond the cube: straight on from the centre, the first point
      weights = weights.map((w) => w * reach);
      weights[0] += 1 - reach;
    }
    return blend(this.grids, weights);
  }

  weights(c) {
    const n = this.points.length;
    if (n === 1) return [1];
    this._inverse ??= inverse(this._system());
    const right = [...this.points.map((p) => cube(p, c)), 1, ...c];
    const weights = [];
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < n + 5; j++) sum += this._inverse[i][j] * right[j];
      weights.push(sum);
    }
    return weights;
  }

  _system() {
    const n = this.points.length;
    const system = Array.from({ length: n + 5 }, () => new Float64Array(n + 5));
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) system[i][j] = cube(this.points[i], this.points[j]);
      [1, ...this.points[i]].forEach((v, k) => { system[i][n + k] = system[n + k][i] = v; });
    }
    return system;
  }
}

/** Sum of weights[i] * grids[i]. */
export function blend(grids, weights) {
  const sum = new Float32Array(grids[0].length);
  for (let i = 0; i < grids.length; i++) {
    const grid = grids[i], weight = weights[i];
    if (weight === 0) continue;
    for (let k = 0; k < sum.length; k++) sum[k] += weight * grid[k];
  }
  return sum;
}

function inverse(matrix) { // Gauss and Jordan, with pivots
  const n = matrix.length;
  const rows = matrix.map((row, i) => {
    const wide = new Float64Array(2 * n);
    wide.set(row);
    wide[n + i] = 1;
    return wide;
  });
  for (let k = 0; k < n; k++) {
    let best = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(rows[i][k]) > Math.abs(rows[best][k])) best = i;
    [rows[k], rows[best]] = [rows[best], rows[k]];
    const pivot = rows[k][k];
    for (let j = 0; j < 2 * n; j++) rows[k][j] /= pivot;
    for (let i = 0; i < n; i++) {
      const factor = rows[i][k];
      if (i === k || factor === 0) continue;
      for (let j = 0; j < 2 * n; j++) rows[i][j] -= factor * rows[k][j];
    }
  }
  return rows.map((row) => row.subarray(n));
}

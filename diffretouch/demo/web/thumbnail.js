// What a model sees of a photo, from its rows as they come: docs/onnx.md, "Thumbnail".

/** Bilinear, as wide as a step of the shrinking: for each output [start, weights]. The same as torch's antialias. */
function taps(from, to) {
  const scale = from / to, wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = scale * (i + 0.5);
    const start = Math.max(Math.trunc(centre - wide + 0.5), 0), end = Math.min(Math.trunc(centre + wide + 0.5), from);
    const weights = Array.from({ length: end - start }, (_, j) => Math.max(0, 1 - Math.abs((start + j - centre + 0.5) / wide)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { start, weights: Float64Array.from(weights, (w) => w / sum) };
  });
}

/** As Python rounds: halves to the even number. */
const even = (v) => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));

/** Takes a photo's rows of RGBA bytes from top to bottom: planes of floats, and whether the photo is grey throughout. */
export class Thumbnail {
  /** `smallest`: of the short side, where the long one is `size` and the photo keeps its shape; without it a square. */
  constructor(width, height, { size, smallest, resample }) {
    const sides = [width, height], long = Math.max(width, height), few = smallest !== undefined;
    const step = few ? Math.max(Math.floor(long / (4 * size)), 1) : 1; // of a large photo every n-th pixel
    this.every = sides.map((side) => (side >= 4 * step ? step : 1));
    this.first = this.every.map((every) => Math.floor(every / 2));
    const [columns, rows] = sides.map((side, i) => Math.ceil((side - this.first[i]) / this.every[i])); // that are looked at
    this.to = few ? sides.map((side) => Math.max(even((side * size) / long), smallest)) : [size, size];
    Object.assign(this, { photoWidth: width, width: columns, height: rows, y: 0, row: 0, grey: true });
    this.data = new Float32Array(3 * this.to[0] * this.to[1]);
    this.nearest = resample === 'nearest';
    this.block = this.nearest || few ? 1 : Math.max(Math.floor(Math.min(width, height) / 2048), 1);
    this.columns = Math.ceil(columns / this.block);
    this.sums = new Float64Array(3 * this.columns); // of a row of blocks
    this.inBlock = 0;
    if (this.nearest) return;
    const blocks = Math.ceil(rows / this.block);
    this.across = taps(this.columns, this.to[0]);
    this.down = Array.from({ length: blocks }, () => []); // row of blocks -> [output row, weight]
    taps(blocks, this.to[1]).forEach(({ start, weights }, to) => weights.forEach((weight, j) => this.down[start + j].push([to, weight])));
  }

  add(pixels) {
    for (let from = 0; from < pixels.length; from += 4 * this.photoWidth, this.y++) {
      if (this.grey) this._judge(pixels, from);
      if (this.y < this.first[1] || (this.y - this.first[1]) % this.every[1]) continue;
      if (this.nearest) this._pick(pixels, from);
      else this._sum(pixels, from);
      this.row += 1;
    }
  }

  _judge(pixels, from) { // grey: within a level of 8 bits
    for (let i = from, end = from + 4 * this.photoWidth; i < end; i += 4) {
      const [r, g, b] = [pixels[i], pixels[i + 1], pixels[i + 2]];
      if (Math.max(r, g, b) - Math.min(r, g, b) > 1) { this.grey = false; return; }
    }
  }

  _pick(pixels, from) {
    const { to: [wide, high], width, height, data } = this;
    for (let row = 0; row < high; row++) {
      if (Math.floor((row * height) / high) !== this.row) continue;
      for (let column = 0; column < wide; column++) {
        const at = from + 4 * Math.floor((column * width) / wide);
        for (let k = 0; k < 3; k++) data[(k * high + row) * wide + column] = pixels[at + k] / 255;
      }
    }
  }

  _sum(pixels, from) {
    const { block, columns, sums, width } = this, next = 4 * this.every[0];
    for (let x = 0, i = from + 4 * this.first[0]; x < width; x++, i += next) {
      const to = 3 * (block === 1 ? x : Math.floor(x / block));
      sums[to] += pixels[i];
      sums[to + 1] += pixels[i + 1];
      sums[to + 2] += pixels[i + 2];
    }
    this.inBlock += 1;
    if (this.inBlock < block && this.row + 1 < this.height) return;
    if (block > 1) {
      for (let x = 0; x < columns; x++) { // the last block of a row and the last row may be smaller
        const count = this.inBlock * Math.min(block, width - x * block);
        for (let k = 3 * x; k < 3 * x + 3; k++) sums[k] /= count;
      }
    }
    this._place(Math.floor(this.row / block));
    sums.fill(0);
    this.inBlock = 0;
  }

  _place(row) {
    const { across, data, down, to: [wide, high], sums } = this;
    for (let column = 0; column < wide; column++) {
      const { start, weights } = across[column];
      let r = 0, g = 0, b = 0;
      for (let j = 0, i = 3 * start; j < weights.length; j++, i += 3) {
        const weight = weights[j];
        r += weight * sums[i];
        g += weight * sums[i + 1];
        b += weight * sums[i + 2];
      }
      for (const [to, weight] of down[row]) {
        const at = to * wide + column, part = weight / 255;
        data[at] += part * r;
        data[at + wide * high] += part * g;
        data[at + 2 * wide * high] += part * b;
      }
    }
  }
}

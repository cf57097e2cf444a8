// Colour tables: {size, data (blue, green, red order, RGB), low, high, title}, read, written, and of a colour function.

/** A `.cube` file's text -> a table; throws one sentence. */
export function parseCube(words, name) {
  let size = 0, title = '';
  let low = [0, 0, 0], high = [1, 1, 1];
  const numbers = [];
  for (const line of words.split(/\r?\n/)) {
    const parts = line.trim().split(/\s+/), key = parts[0];
    if (!key || key.startsWith('#')) continue;
    if (key === 'LUT_3D_SIZE') size = Number(parts[1]);
    else if (key === 'LUT_1D_SIZE') throw new Error(`${name} is a curve (1D); the page takes 3D tables.`);
    else if (key === 'DOMAIN_MIN') low = parts.slice(1, 4).map(Number);
    else if (key === 'DOMAIN_MAX') high = parts.slice(1, 4).map(Number);
    else if (key === 'LUT_3D_INPUT_RANGE') [low, high] = [parts[1], parts[2]].map((v) => [v, v, v].map(Number));
    else if (key === 'TITLE') title = line.trim().slice(5).replaceAll('"', '').trim();
    else if (/^[-+.\d]/.test(key)) numbers.push(...parts.slice(0, 3).map(Number));
  }
  const data = Float32Array.from(numbers);
  if (!(size >= 2 && size <= 128) || data.length !== 3 * size ** 3 || !data.every(Number.isFinite)) {
    throw new Error(`${name} is no colour table that can be used: it needs LUT_3D_SIZE from 2 to 128 and as many colours.`);
  }
  return { size, data, low, high, title: title || name.replace(/\.[^.]*$/, ''), text: words };
}

/** A table -> the text of a `.cube` file. */
export function toCube({ size, data, low, high, title }) {
  const lines = [`TITLE "${title.replaceAll('"', '')}"`, `LUT_3D_SIZE ${size}`];
  if (low.some((v) => v !== 0) || high.some((v) => v !== 1)) lines.push(`DOMAIN_MIN ${low.join(' ')}`, `DOMAIN_MAX ${high.join(' ')}`);
  for (let i = 0; i < data.length; i += 3) lines.push([data[i], data[i + 1], data[i + 2]].map((v) => v.toFixed(6)).join(' '));
  return `${lines.join('\n')}\n`;
}

/** The table of a colour function: `colours(p, out)` of numbers in [0,1]. */
export function tableOf(size, colours, title = '') {
  const data = new Float32Array(3 * size ** 3), p = [0, 0, 0], out = [0, 0, 0];
  for (let i = 0; i < size ** 3; i++) {
    p[0] = (i % size) / (size - 1);
    p[1] = (Math.floor(i / size) % size) / (size - 1);
    p[2] = Math.floor(i / size ** 2) / (size - 1);
    colours(p, out);
    data.set(out, 3 * i);
  }
  return { size, data, low: [0, 0, 0], high: [1, 1, 1], title };
}

/** The table mixed with doing nothing, of every `step`-th node. */
export function atStrength({ size, data, low, high, title }, strength, step = 1) {
  const edge = Math.floor((size - 1) / step) + 1, mixed = new Float32Array(3 * edge ** 3);
  for (let i = 0; i < edge ** 3; i++) {
    const place = [i % edge, Math.floor(i / edge) % edge, Math.floor(i / edge ** 2)].map((v) => v * step);
    for (let k = 0; k < 3; k++) {
      const plain = low[k] + ((high[k] - low[k]) * place[k]) / (size - 1), node = place[0] + size * (place[1] + size * place[2]);
      mixed[3 * i + k] = plain + strength * (data[3 * node + k] - plain);
    }
  }
  return { size: edge, data: mixed, low, high, title };
}

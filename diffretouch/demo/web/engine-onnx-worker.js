// The models beside the page: fetched once, run by ONNX Runtime as WebAssembly on one thread. docs/onnx.md says how.
import { noise } from './noise.js';
import { tableOf } from './table.js';
import { Thumbnail } from './thumbnail.js';

const CACHE = 'diffretouch-engine';
const NODES = 65; // on an edge of the table of a colour function
const folder = new URL('engine/', import.meta.url);
let files = {}; // name -> {bytes, sha256} of what is in it, and how many bytes it has packed
let runtime = null;
const models = new Map(), thumbnails = new Map();

class Failure extends Error {
  constructor(message, away = false) {
    super(message);
    this.away = away;
  }
}

/** A file of the engine, unpacked; from the cache where it was fetched before. */
async function fetched(name, progress = () => {}) {
  const { bytes, sha256, packed: size } = files[name], address = new URL(`${name}?${sha256.slice(0, 16)}`, folder);
  const cache = await self.caches?.open(CACHE).catch(() => null);
  let answer = await cache?.match(address);
  const kept = !!answer;
  if (!kept) {
    answer = await fetch(address).catch(() => { throw new Failure(`engine/${name} cannot be fetched.`, true); });
    if (!answer.ok) throw new Failure(`engine/${name} is missing where this page comes from (${answer.status}): the page is not whole.`);
  }
  const parts = [], reader = answer.body.getReader();
  try {
    for (let part = await reader.read(), got = 0; !part.done; part = await reader.read()) {
      parts.push(part.value);
      progress((got += part.value.length) / size);
    }
  } catch {
    throw new Failure(`engine/${name} cannot be fetched.`, true);
  }
  const packed = new Blob(parts), head = new Uint8Array(await packed.slice(0, 2).arrayBuffer());
  const isPacked = head[0] === 0x1f && head[1] === 0x8b; // some servers unpack on the way
  const stream = isPacked ? packed.stream().pipeThrough(new DecompressionStream('gzip')) : packed.stream();
  const data = await new Response(stream).arrayBuffer().catch(() => new ArrayBuffer(0));
  if (data.byteLength !== bytes || (self.crypto.subtle && (await digest(data)) !== sha256)) {
    await cache?.delete(address);
    throw new Failure(`engine/${name} is not the file that this page was made with: the page is not whole.`);
  }
  if (!kept) await cache?.put(address, new Response(packed)).catch(() => {}); // no room: it is fetched again next time
  return data;
}

async function digest(data) {
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
  return [...sum].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Files of pages that were here before. */
async function tidy() {
  const cache = await self.caches?.open(CACHE).catch(() => null);
  const wanted = Object.entries(files).map(([name, { sha256 }]) => new URL(`${name}?${sha256.slice(0, 16)}`, folder).href);
  for (const { url } of (await cache?.keys()) ?? []) if (url.startsWith(folder.href) && !wanted.includes(url)) await cache.delete(url);
}

async function begun(wasm) {
  const ort = await import(new URL('ort.wasm.bundle.min.mjs', folder).href).catch(() => {
    throw new Failure('engine/ort.wasm.bundle.min.mjs cannot be fetched.', true);
  });
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm });
  return ort;
}

async function opened({ model: name, files: [spec, graph, wasm] }) {
  const shares = [0, 0], told = (i) => (share) => { shares[i] = Math.min(share, 1); postMessage({ progress: (shares[0] + shares[1]) / 2 }); };
  const [said, weights, binary] = await Promise.all([fetched(spec), fetched(graph, told(0)), runtime ? null : fetched(wasm, told(1))]);
  try {
    runtime ??= await begun(binary);
    const session = await runtime.InferenceSession.create(new Uint8Array(weights), { executionProviders: ['wasm'] });
    models.set(name, { session, ...JSON.parse(new TextDecoder().decode(said)) });
  } catch (error) {
    runtime = null;
    if (error instanceof Failure) throw error;
    throw new Failure(`This browser cannot run the model (${String(error.message ?? error).slice(0, 200)}).`);
  }
  postMessage({ progress: 1 });
  tidy().catch(() => {});
  return models.get(name).thumbnail;
}

/** One sample: the grid (12,D,gh,gw) at c, for pixels in [0,1], before it is held in range. */
async function grid({ model: name, seen: { data, width, height, grey }, c, seed }) {
  const { session, latents: shape, schedule, default_steps, pixel_range: [low, high], luma, grid: form } = models.get(name);
  const { Tensor } = runtime, tensor = (values, ...dims) => new Tensor('float32', values, [1, ...dims]);
  let x = noise(seed, shape.reduce((a, b) => a * b)), made = null;
  for (const [timestep, alpha, following] of schedule.steps[default_steps]) {
    made = await session.run({
      latents: tensor(x, ...shape), thumbnail: tensor(data, 3, height, width), c: tensor(Float32Array.from(c), 4),
      timestep: new Tensor('float32', Float32Array.of(timestep), [1]),
    });
    x = stepped(schedule, x, made.output.data, alpha, following);
  }
  const own = Float32Array.from(made.grid.data), volume = own.length / 12;
  if (!own.every(Number.isFinite)) throw new Failure('The model made a grid that is not finite: its weights are broken.');
  if (grey) { // of grey pixels grey
    for (let i = 0; i < 4 * volume; i++) {
      const value = luma[0] * own[i] + luma[1] * own[i + 4 * volume] + luma[2] * own[i + 8 * volume];
      for (let k = 0; k < 3; k++) own[i + 4 * k * volume] = value;
    }
  }
  for (let k = 0; k < 3; k++) { // what is added to red, green and blue, of pixels in the model's own range
    for (let i = 4 * k * volume, j = 0; j < volume; j++) {
      const sum = own[i + j] + own[i + volume + j] + own[i + 2 * volume + j];
      own[i + 3 * volume + j] = (own[i + 3 * volume + j] + low * sum - low) / (high - low);
    }
  }
  return { grid: own, shape: form };
}

function stepped({ prediction_type: kind, clip_sample_range: most }, x, v, alpha, following) {
  const a = Math.sqrt(alpha), b = Math.sqrt(1 - alpha), p = Math.sqrt(following), q = Math.sqrt(1 - following);
  return x.map((at, i) => {
    let clean = v[i], noisy = v[i];
    if (kind === 'v_prediction') [clean, noisy] = [a * at - b * v[i], a * v[i] + b * at];
    else if (kind === 'epsilon') clean = (at - b * v[i]) / a;
    else noisy = (at - a * v[i]) / b;
    if (most !== null) clean = Math.min(Math.max(clean, -most), most);
    return p * clean + q * noisy;
  });
}

/** A CSRNet's colour function of this photo, as a table. */
async function colours({ model: name, seen: { data, width, height, grey } }) {
  const made = await models.get(name).session.run({ thumbnail: new runtime.Tensor('float32', data, [1, 3, height, width]) });
  const layers = [1, 2, 3].map((k) => ({ weight: made[`weight${k}`].data, bias: made[`bias${k}`].data, out: new Float32Array(made[`bias${k}`].data.length) }));
  const table = tableOf(NODES, (p, out) => {
    let x = p;
    for (const [k, { weight, bias, out: y }] of layers.entries()) {
      for (let i = 0, at = 0; i < y.length; i++) {
        let sum = bias[i];
        for (let j = 0; j < x.length; j++, at++) sum += weight[at] * x[j];
        y[i] = k < 2 && sum < 0 ? 0 : sum;
      }
      x = y;
    }
    for (let k = 0; k < 3; k++) out[k] = grey ? 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2] : x[k];
  }, name);
  if (!table.data.every(Number.isFinite)) throw new Failure('The model made colours that are not finite: its weights are broken.');
  return table;
}

const answers = {
  begin: (asked) => { files = asked.files; },
  open: opened,
  photo: ({ key, width, height, thumbnail }) => { thumbnails.set(key, new Thumbnail(width, height, thumbnail)); },
  rows: ({ key, pixels }) => { thumbnails.get(key).add(pixels); },
  seen: ({ key }) => {
    const { data, to: [width, height], grey } = thumbnails.get(key);
    thumbnails.delete(key);
    return { data, width, height, grey };
  },
  grid,
  colours,
};

addEventListener('message', async ({ data: { id, kind, ...asked } }) => {
  try {
    postMessage({ id, result: await answers[kind](asked) });
  } catch (error) {
    postMessage({ id, error: error.message || String(error), away: !!error.away });
  }
});

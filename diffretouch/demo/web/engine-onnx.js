// The browser alone as an engine: exported models by ONNX Runtime, in a worker. The photo never leaves the device.
// `diffretouch demo --build` lays what it fetches into the folder `engine`. The interface is that of engine-server.js.
import { EngineError } from './engine-server.js';

const STRIP = 512; // rows that are read at once
const ENDED = 'What makes the pictures ended, or could not be fetched.';

export class OnnxEngine {
  constructor(base = 'engine') {
    this.base = base;
    this.kind = 'onnx';
    this.called = 'The connection';
    this.reads = 'JPEG, PNG, WebP, AVIF';
    this.progress = () => {}; // of the fetching, 0 to 1
    this.opening = new Map(); // model -> promise of what its thumbnail is
    this.looked = new WeakMap(); // photo -> model -> promise of what the model sees of it
    this.answers = new Map(); // number of a question to the worker -> {done, fail}
    this.waiting = [[], []]; // samples that are asked for: those that somebody waits for, and the others
    this.asked = 0;
  }

  async begin() {
    const away = () => { throw new EngineError('This page cannot fetch what it needs.', { away: true }); };
    const answer = await fetch(`${this.base}/about.json`, { cache: 'no-cache' }).catch(away);
    const about = answer.ok ? await answer.json().catch(() => null) : null;
    if (!about) throw new EngineError(`${this.base}/about.json is missing where this page comes from: the page is not whole.`);
    this.about = about;
    if (!this.worker) {
      this.worker = new Worker(new URL('engine-onnx-worker.js', import.meta.url), { type: 'module' });
      this.worker.addEventListener('message', ({ data }) => this._answered(data));
      this.worker.addEventListener('error', () => this._broken());
    }
    await this._call('begin', { files: this.about.files });
    if (!navigator.connection?.saveData) this._opened(Object.keys(this.about.models)[0]).catch(() => {}); // told when it is needed
    return this.about;
  }

  async model(label) { return this.about.models[label]; }

  async open() { return null; }

  /** Grids at rows of c: {grids: [Float32Array], shape: [12, D, gh, gw]}. Those with a signal come first. */
  async grids(photo, model, seed, rows, signal) {
    const seen = await this.seen(photo, model), seeds = Array.isArray(seed) ? seed : rows.map(() => seed);
    const made = await Promise.all(rows.map((c, i) => this._sample({ model, seen, c, seed: seeds[i] }, signal)));
    return { grids: made.map(({ grid }) => grid), shape: made[0].shape };
  }

  /** A model without sliders as a colour table: what it does to this photo's colours, wherever they are. */
  async colours(photo, model) {
    const seen = await this.seen(photo, model);
    await this._opened(model);
    return this._call('colours', { model, seen });
  }

  /** What a model sees of the photo: {data: three planes of floats, width, height, grey}. */
  seen(photo, model) {
    if (!this.looked.has(photo)) this.looked.set(photo, new Map());
    const known = this.looked.get(photo);
    if (!known.has(model)) {
      known.set(model, this._look(photo, model));
      known.get(model).catch(() => known.delete(model));
    }
    return known.get(model);
  }

  async _look(photo, model) {
    const { source } = photo, { width, height } = source, key = `${photo.id} ${model}`;
    await this._call('photo', { key, width, height, thumbnail: this.about.models[model].thumbnail });
    for (let y = 0; y < height; y += STRIP) {
      const pixels = source.read(0, y, width, Math.min(STRIP, height - y), 'srgb');
      await this._call('rows', { key, pixels }, [pixels.buffer]); // the page goes on meanwhile
    }
    return this._call('seen', { key });
  }

  _opened(model) {
    if (!this.opening.has(model)) {
      this.opening.set(model, this._call('open', { model, files: this.about.models[model].files }));
      this.opening.get(model).catch(() => this.opening.delete(model));
    }
    return this.opening.get(model);
  }

  _sample(asked, signal) {
    return new Promise((done, fail) => {
      this.waiting[signal ? 0 : 1].push({ asked, signal, done, fail });
      this._next();
    });
  }

  /** One after the other, so that who waits is not behind a whole batch. */
  async _next() {
    if (this.working) return;
    const next = this.waiting[0].shift() ?? this.waiting[1].shift();
    if (!next) return;
    this.working = true;
    try {
      next.signal?.throwIfAborted();
      await this._opened(next.asked.model);
      next.signal?.throwIfAborted();
      next.done(await this._call('grid', next.asked));
    } catch (error) {
      next.fail(error);
    }
    this.working = false;
    this._next();
  }

  _call(kind, asked, transfer = []) {
    const id = ++this.asked;
    return new Promise((done, fail) => {
      if (!this.worker) { fail(new EngineError(ENDED, { away: true })); return; }
      this.answers.set(id, { done, fail });
      this.worker.postMessage({ id, kind, ...asked }, transfer);
    });
  }

  _answered({ id, result, error, away, progress }) {
    if (progress !== undefined) return this.progress(progress);
    const { done, fail } = this.answers.get(id);
    this.answers.delete(id);
    return error === undefined ? done(result) : fail(new EngineError(error, { away }));
  }

  /** The worker could not be started, or ended: another one, when something is asked for again. */
  _broken() {
    this.worker.terminate();
    this.worker = null;
    this.opening.clear();
    for (const { fail } of this.answers.values()) fail(new EngineError(ENDED, { away: true }));
    this.answers.clear();
  }
}

// The Python side as an engine. An engine gives grids and, where it can, pictures and files; `engine-*.js` have the
// same functions: begin, model, open, grids, seen, and those that they can: pixels, file, table, sheet, look, close. `away`
// tells that it cannot be reached.

export class EngineError extends Error {
  constructor(message, { away = false, status = 0 } = {}) {
    super(message);
    this.away = away;
    this.status = status;
  }
}

export class ServerEngine {
  constructor(base = 'api') {
    this.base = base;
    this.kind = 'server';
    this.called = 'The program';
    this.reads = 'JPEG, PNG, TIFF, WebP, AVIF';
    this.opening = new Map(); // photo's id -> promise of what the server says of it
    addEventListener('pagehide', () => this.about && navigator.sendBeacon(`${this.base}/close`, this.about.visitor));
  }

  /** Models, limits, formats. Throws where no server answers. */
  async begin() {
    this.about = await (await this._fetch('about', {}, false)).json();
    return this.about;
  }

  /** What a model is (its guide, whether it has sliders); it is loaded where it was not. */
  async model(label) {
    const known = this.about.models;
    if (!('steered' in (known[label] ?? {}))) {
      known[label] = await (await this._fetch(`model?label=${encodeURIComponent(label)}`)).json();
    }
    return known[label];
  }

  /** Send a photo {id, name, blob}; what the server says of it. Sent once. */
  open(photo) {
    if (!this.opening.has(photo.id)) {
      const body = photo.blob, sent = this._fetch(`open?name=${encodeURIComponent(photo.name)}`, { method: 'POST', body });
      const said = sent.then((answer) => answer.json());
      said.catch(() => this.opening.delete(photo.id));
      this.opening.set(photo.id, said);
    }
    return this.opening.get(photo.id);
  }

  /** Grids at rows of c: {grids: [Float32Array], shape: [12, D, gh, gw]}. `seeds`: one, or one for each row. */
  async grids(photo, model, seed, rows, signal) {
    const answer = await this._of(photo, 'grids', { model, seed, c: rows }, signal);
    const [n, ...shape] = answer.headers.get('X-Shape').split(',').map(Number);
    const all = new Float32Array(await answer.arrayBuffer()), size = all.length / n;
    return { grids: rows.map((_, i) => all.subarray(i * size, (i + 1) * size)), shape };
  }

  /** What a model sees of the photo: {data: three planes of floats, width, height}. */
  async seen(photo, model) {
    photo.seen ??= new Map();
    if (!photo.seen.has(model)) {
      const query = new URLSearchParams({ photo: (await this.open(photo)).photo, seen: model });
      const answer = await this._again(photo, () => this._fetch(`pixels?${query}`), query);
      const [, height, width] = answer.headers.get('X-Shape').split(',').map(Number);
      photo.seen.set(model, { data: new Float32Array(await answer.arrayBuffer()), width, height });
    }
    return photo.seen.get(model);
  }

  /** The photo's own pixels, with alpha where it has any, or retouched as a whole by a model without sliders. */
  async pixels(photo, look = null, signal = null) {
    const said = await this.open(photo);
    const query = new URLSearchParams({ photo: said.photo, ...(look ?? (said.alpha ? { alpha: 1 } : {})) });
    const answer = await this._again(photo, () => this._fetch(`pixels?${query}`, { signal }), query);
    const [height, width] = answer.headers.get('X-Shape').split(',').map(Number);
    return { width, height, rgb: new Uint8Array(await answer.arrayBuffer()) };
  }

  /** A look's file of any kind -> {text: the same as .cube, notes}. */
  async look(file, name) {
    const answer = await this._fetch(`look?name=${encodeURIComponent(name)}`, { method: 'POST', body: file });
    return { text: await answer.text(), notes: JSON.parse(answer.headers.get('X-Notes') ?? '[]') };
  }

  file(photo, asked) { return this._download(photo, 'export', asked); }
  table(photo, asked) { return this._download(photo, 'lut', asked); }
  sheet(photo, asked) { return this._download(photo, 'sheet', asked); }

  async close(photo) {
    const said = await this.opening.get(photo.id)?.catch(() => null);
    this.opening.delete(photo.id);
    if (said) fetch(`${this.base}/close`, { method: 'POST', body: `${this.about.visitor} ${said.photo}` }).catch(() => {});
  }

  async _download(photo, path, asked) {
    const answer = await this._of(photo, path, asked);
    const name = /filename\*=UTF-8''([^;]+)/.exec(answer.headers.get('Content-Disposition') ?? '');
    const notes = JSON.parse(answer.headers.get('X-Notes') ?? '[]');
    return { blob: await answer.blob(), name: name ? decodeURIComponent(name[1]) : photo.name, notes };
  }

  /** Ask for something of a photo, which is opened first; and again if the server has forgotten it. */
  async _of(photo, path, asked, signal) {
    const send = async () => {
      const body = JSON.stringify({ ...asked, photo: (await this.open(photo)).photo });
      return this._fetch(path, { method: 'POST', body, signal, headers: { 'Content-Type': 'application/json' } });
    };
    return this._again(photo, send);
  }

  async _again(photo, send, query = null) {
    try {
      return await send();
    } catch (error) {
      if (error.status !== 410) throw error;
      if (query) {
        this.opening.delete(photo.id);
        query.set('photo', (await this.open(photo)).photo);
      } else {
        this.opening.delete(photo.id);
      }
      return send();
    }
  }

  async _fetch(path, options = {}, again = true) {
    const headers = { ...options.headers, ...(this.about ? { 'X-Visitor': this.about.visitor } : {}) };
    let answer;
    try {
      answer = await fetch(`${this.base}/${path}`, { ...options, headers });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new EngineError('The program behind this page does not answer.', { away: true });
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 410 && again && path.startsWith('open')) { // another program, or one that forgot this page
      await this.begin();
      return this._fetch(path, options, false);
    }
    throw new EngineError(said.error ?? `It failed (${answer.status}).`, { status: answer.status });
  }
}

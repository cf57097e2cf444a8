// What the screen shows of an edit: at once by interpolation, then the model's own sample, faded in. And what is
// learned from the picture: histogram, numbers, four variations.
import { fit, meanColours } from './bake.js';
import { count, drawHistogram, measure } from './histogram.js';
import { blend, GridField, sliderPoints } from './interpolate.js';
import { rgbSource } from './photo.js';
import { insideOf, measureArea, Range } from './range.js';
import { guideAt } from './slice-cpu.js';
import { ATTRIBUTES, edit, SLIDERS, state } from './state.js';
import { atStrength, tableOf } from './table.js';

const REST = 90, FADE = 140; // ms until a hand counts as resting; ms of the fade to the true sample
const MOST_FIELDS = 6, TABLE_SIDE = 512; // photos and noises whose grids are kept; pixels of what a table is fitted to

export class Picture {
  /** `hooks`: failed(error), busy(text or null). */
  constructor(view, stage, hooks) {
    Object.assign(this, { view, stage, hooks, fields: new Map(), counts: new Map(), colours: new WeakMap(), move: 0, waiting: [], shown: null, before: null });
    this.look = { mode: 'photo' };
  }

  /** Another photo is on the stage. */
  start(photo) {
    this.shown = null;
    this.before = null;
    this.other = null;
    this.abort?.abort();
    this.abortAside?.abort();
    this.view.setPhoto(photo);
    this.set({ mode: 'photo' }, false);
    if (photo) this.update();
  }

  /** The graphics processor forgot everything. */
  restore() {
    const photo = state.active;
    this.other = null;
    this.view.slicer.setPhoto(photo?.source ?? null);
    this.update();
  }

  field(photo, own) {
    const key = `${photo.id}|${own.model}|${own.seed}`;
    const field = this.fields.get(key) ?? Object.assign(new GridField(), { key, model: own.model, seed: own.seed });
    this.fields.delete(key);
    this.fields.set(key, field);
    if (this.fields.size > MOST_FIELDS) this.fields.delete(this.fields.keys().next().value);
    return field;
  }

  /** The edit, or what is known of it, has changed. `same`: only more is known. */
  update({ same = false } = {}) {
    const photo = state.active, own = edit();
    if (!photo) return;
    if (!same) this.move += 1;
    clearTimeout(this.resting);
    if (own.table) return this._byTable(own);
    const model = state.about.models[own.model];
    if (!model || !('steered' in model)) {
      this.hooks.busy('Loading the model');
      state.engine.model(own.model).then(() => { this.hooks.busy(null); this.hooks.changed(); this.update({ same: true }); }, (e) => {
        this.hooks.busy(null);
        this.set({ mode: 'photo' }, false);
        this._failed(e);
      });
      return;
    }
    if (!model.steered) return state.engine.colours ? this._byColours(photo, own) : this._byPicture(photo, own);
    this.view.slicer.setGuide(model.guide);
    const field = this.field(photo, own), rows = [own.c, ...own.areas.map((area) => area.c)];
    const grids = this._kept(field, rows.map((c) => field.at(c)), own.areas, photo), judged = this._judge(field, own.areas, photo);
    const sampled = rows.every((c) => field.known(c)), known = sampled && judged;
    if (grids[0]) this._fadeTo(grids, field, own, known);
    else this.set({ mode: 'photo' }, false);
    if (!sampled) {
      if (!grids[0]) this.hooks.busy('Looking at the photo');
      const beyond = rows.some((c) => c.some((v) => Math.abs(v) > 1));
      if (!grids[0] || (beyond && !this.asking)) this._ask(photo, own, field, rows);
      else this.resting = setTimeout(() => this._rest(photo, own, field, rows), REST);
    } else if (known) {
      this.hooks.busy(null);
      this._fill(photo, field);
    }
  }

  /** Grids held in range, see `range.js`. */
  _kept(field, grids, areas, photo) {
    if (!field.range || !grids[0]) return grids;
    const counts = areas.map((area) => {
      const own = insideOf(area, photo, field.range);
      if (own) this.counts.set(area.id, own);
      return own ?? this.counts.get(area.id) ?? null; // of a range that moves: where it was
    });
    return grids.map((grid, i) => field.range.keep(grid, i ? counts[i - 1] : null));
  }

  /** Whether it is known where all areas are; if not it is found out when the hand rests. */
  _judge(field, areas, photo) {
    const missing = field.range ? areas.filter((area) => !insideOf(area, photo, field.range)) : [];
    if (missing.length && !state.moving && !this.judging) {
      this.judging = Promise.all(missing.map((area) => measureArea(area, photo, field.range))).then(() => {
        this.judging = null;
        if (state.active === photo) this.update({ same: true });
      });
    }
    return !missing.length;
  }

  _rest(photo, own, field, rows) {
    if (state.moving) { this.resting = setTimeout(() => this._rest(photo, own, field, rows), REST); return; }
    this._ask(photo, own, field, rows);
  }

  /** The model's own samples at these rows. */
  async _ask(photo, own, field, rows) {
    this.abort?.abort();
    this.abort = new AbortController();
    const missing = [...new Map(rows.filter((c) => !field.known(c)).map((c) => [String(c), c])).values()];
    const first = !field.points.length, centre = sliderPoints()[0];
    const asked = first ? [...centre, ...missing.filter((c) => String(c) !== String(centre[0]))] : missing;
    this.asking = true;
    try {
      const { grids, shape } = await state.engine.grids(photo, own.model, own.seed, asked, this.abort.signal);
      await this._begin(photo, field, shape);
      if (first && !field.points.length) field.add(centre, grids.slice(0, 1));
      asked.forEach((c, i) => field.keep(c, grids[i]));
    } catch (error) {
      if (error.name !== 'AbortError') { this.hooks.busy(null); this._failed(error); }
      return;
    } finally {
      this.asking = false;
    }
    this.hooks.answered();
    if (state.active === photo) this.update({ same: true });
  }

  async _begin(photo, field, shape) {
    const { guide, clipping_limit: share, shoulder } = state.about.models[field.model];
    if (share !== null && !field.range) {
      const { engine } = state;
      field.range = new Range(await engine.seen(photo, field.model), guide, shape, share);
    }
    Object.assign(field, { shape, shoulder });
  }

  /** The points between which sliders are interpolated, batch by batch, while nothing else is asked for. */
  async _fill(photo, field) {
    if (field.filling || field.points.length >= 25) return;
    field.filling = true;
    try {
      for (const points of sliderPoints().slice(1)) {
        if (field.points.some((p) => String(p) === String(points[0]))) continue;
        if (!this.fields.has(field.key) || state.active !== photo) break;
        const { grids } = await state.engine.grids(photo, field.model, field.seed, points);
        field.add(points, grids);
        if (state.active === photo) this.update({ same: true });
      }
    } catch (error) {
      if (error.away) this._failed(error);
    } finally {
      field.filling = false;
      this.stage.dataset.points = field.points.length;
    }
  }

  _fadeTo(grids, field, own, final) {
    const look = { mode: 'grids', shape: field.shape, shoulder: field.shoulder, strength: own.strength, areas: own.areas };
    const from = this.shown, still = final && !state.moving && from && !from.final && from.key === field.key
      && from.grids.length === grids.length && from.strength === own.strength;
    cancelAnimationFrame(this.fading);
    this.view.animating = false;
    if (!still) {
      this.shown = { key: field.key, grids, final, strength: own.strength };
      this.set({ ...look, grids }, final);
      return;
    }
    const begin = performance.now(), step = (now) => {
      const part = Math.min((now - begin) / FADE, 1);
      const mixed = part === 1 ? grids : grids.map((grid, i) => blend([from.grids[i], grid], [1 - part, part]));
      this.view.animating = part < 1;
      this.shown = { ...from, grids: mixed, final: part === 1 };
      this.set({ ...look, grids: mixed }, part === 1);
      if (part < 1) this.fading = requestAnimationFrame(step);
    };
    step(begin);
  }

  _byTable(own) {
    if (this.view.slicer.tableOf !== own.table) this.view.slicer.setTable(own.table);
    this.view.slicer.tableOf = own.table;
    this.hooks.busy(null);
    this.set({ mode: 'table', strength: own.strength }, true);
  }

  /** Models without sliders whose colours are known as a table. */
  async _byColours(photo, own) {
    const known = this.colours.get(photo) ?? new Map();
    this.colours.set(photo, known);
    if (known.get(own.model)?.data) return this._byTable({ ...own, table: known.get(own.model) });
    this.set({ mode: 'photo' }, false);
    this.hooks.busy('Looking at the photo');
    if (known.has(own.model)) return; // it is asked for
    try {
      known.set(own.model, state.engine.colours(photo, own.model));
      known.set(own.model, await known.get(own.model));
    } catch (error) {
      known.delete(own.model);
      this.hooks.busy(null);
      this._failed(error);
      return;
    }
    this.hooks.answered();
    if (state.active === photo) this.update({ same: true });
  }

  /** Models without sliders retouch the whole photo once; its strength is a mix. */
  async _byPicture(photo, own) {
    this.view.slicer.setGuide(null);
    const strength = Math.max(own.strength, 1), key = [photo.id, own.model, strength].join();
    if (this.other?.key.startsWith(`${photo.id},${own.model},`)) {
      this.set({ mode: 'other', strength: own.strength / this.other.strength }, this.other.key === key);
      if (this.other.key === key) return;
    } else {
      this.set({ mode: 'photo' }, false);
      this.hooks.busy('Retouching the photo');
    }
    if (this.wanted === key || state.moving) return;
    this.wanted = key;
    try {
      const pixels = await state.engine.pixels(photo, { model: own.model, strength });
      if (this.wanted === key && state.active === photo) {
        this.view.slicer.setPhoto(rgbSource(pixels), 'other');
        this.other = { key, strength };
        this.hooks.busy(null);
      }
    } catch (error) {
      this.hooks.busy(null);
      this._failed(error);
      return;
    } finally {
      if (this.wanted === key) this.wanted = null;
    }
    this.hooks.answered();
    if (state.active === photo) this.update({ same: true });
  }

  /** Resolves when the picture is the model's own of the present edit; fails where that cannot be made. */
  settled() {
    return this.final ? Promise.resolve() : new Promise((done, fail) => this.waiting.push({ done, fail }));
  }

  _failed(error) {
    this.hooks.failed(error);
    for (const { fail } of this.waiting.splice(0)) fail(error);
  }

  set(look, final) {
    this.look = look;
    this.final = final;
    if (final) for (const { done } of this.waiting.splice(0)) done();
    this.view.slicer.setLook(look);
    this.stage.dataset.final = final ? '1' : '0';
    this.stale = true;
    this.view.changed();
  }

  // What is learned from the picture

  /** A small copy: {pixels, width, height}. `plain`: before. */
  small(side, plain = false) {
    const [w, h] = this.view.size, step = Math.max(Math.max(w, h) / side, 1);
    const width = Math.max(Math.round(w / step), 1), height = Math.max(Math.round(h / step), 1);
    return { pixels: this.view.slicer.render({ x: 0, y: 0, step: Math.max(w / width, h / height) }, width, height, { plain }), width, height };
  }

  /** After a frame: the histogram, a few times a second while something moves. */
  drawn() {
    this.stage.dataset.shown = this.move;
    if (!this.stale || this.reading) return;
    this.reading = setTimeout(() => {
      this.reading = null;
      if (!this.stale || !state.active || this.view.slicer.lost) return;
      this.stale = false;
      const side = this.view.noGpu ? 96 : 200;
      this.before ??= count(this.small(side, true).pixels);
      drawHistogram(document.getElementById('histogram'), this.before, count(this.small(side).pixels));
      if (this.final) this.measured();
      if (this.final) this.hooks.thumb?.();
    }, state.moving ? 120 : 30);
  }

  measured() {
    const details = document.getElementById('measured');
    if (!details.open || !state.active) return;
    const [before, after] = [true, false].map((plain) => {
      const { pixels, width, height } = this.small(128, plain);
      return measure(pixels, width, height);
    });
    const rows = ATTRIBUTES.map((name, i) => {
      const row = document.createElement('tr'), head = document.createElement('th');
      head.scope = 'row';
      head.textContent = SLIDERS[name][0];
      row.append(head, ...[before, after].map((values) => Object.assign(document.createElement('td'), { textContent: values[i].toFixed(3) })));
      return row;
    });
    details.querySelector('tbody').replaceChildren(...rows);
  }

  /** Four samples of other noise that differ most: [{seed, pixels, width, height}]. */
  async four() {
    const photo = state.active, own = edit(), rows = [own.c, ...own.areas.map((area) => area.c)];
    const many = Math.min(8, Math.floor(32 / rows.length)), seeds = Array.from({ length: many }, (_, i) => own.seed + 1 + i);
    const all = seeds.flatMap((seed) => rows.map(() => seed));
    this.abortAside?.abort(); // of four, the last that were asked for
    this.abortAside = new AbortController();
    const { grids, shape } = await state.engine.grids(photo, own.model, all, seeds.flatMap(() => rows), this.abortAside.signal);
    const sets = seeds.map((_, i) => grids.slice(i * rows.length, (i + 1) * rows.length));
    const far = (a, b) => a[0].reduce((sum, v, i) => sum + (v - b[0][i]) ** 2, 0);
    const chosen = [], now = this.field(photo, own).at(own.c);
    while (chosen.length < Math.min(4, many)) { // each as far as can be from those before it
      let best = -1, reach = -1;
      for (let i = 0; i < many; i++) {
        if (chosen.includes(i)) continue;
        const near = Math.min(...chosen.map((k) => far(sets[i], sets[k])), ...(now ? [far(sets[i], [now])] : []));
        if (near > reach) [best, reach] = [i, near];
      }
      chosen.push(best);
    }
    const fields = chosen.sort((a, b) => a - b).map((i) => this.field(photo, { ...own, seed: seeds[i] }));
    for (const field of fields) await this._begin(photo, field, shape);
    return chosen.map((i, k) => {
      rows.forEach((c, row) => fields[k].keep(c, sets[i][row]));
      return { seed: seeds[i], ...this._drawn(fields[k], own, sets[i], photo, 360) };
    });
  }

  /** A small picture of other grids than those that are shown. */
  _drawn(field, { strength, areas }, grids, photo, side) {
    const { slicer } = this.view, { shape, shoulder } = field;
    slicer.setLook({ mode: 'grids', grids: this._kept(field, grids, areas, photo), shape, shoulder, strength, areas });
    const picture = this.small(side);
    slicer.setLook(this.look);
    return picture;
  }

  /** The photo at each of these rows of c, without areas and in full strength: pictures for a sheet. */
  async sheet(rows, side) {
    const photo = state.active, own = { ...edit(), areas: [], strength: 1 }, field = this.field(photo, own);
    const missing = rows.filter((c) => !field.known(c));
    this.abortAside?.abort();
    this.abortAside = new AbortController();
    if (missing.length) {
      const { grids, shape } = await state.engine.grids(photo, own.model, own.seed, missing, this.abortAside.signal);
      await this._begin(photo, field, shape);
      missing.forEach((c, i) => field.keep(c, grids[i]));
    }
    return rows.map((c) => this._drawn(field, own, [field.known(c)], photo, side));
  }

  /** The look without its areas as a colour table, and by how many levels it misses the picture in the mean. */
  async table(size) {
    const photo = state.active, own = { ...edit(), areas: [] }, known = own.table ?? (await this.colours.get(photo)?.get(own.model));
    if (known) return { table: atStrength(known, own.strength, own.table ? 1 : Math.max(Math.floor((known.size - 1) / (size - 1)), 1)) };
    const field = this.field(photo, own), [grid] = this._kept(field, [field.at(own.c)], [], photo), { guide } = state.about.models[own.model];
    const before = this.small(TABLE_SIDE, true).pixels, after = this._drawn(field, own, [field.at(own.c)], photo, TABLE_SIDE).pixels;
    const table = tableOf(size, meanColours(grid, field.shape, (p) => guideAt(guide, p), field.shoulder, own.strength), 'diffretouch');
    return { table, error: await fit(table, before, after) };
  }
}

// The stage: where the photo lies on it, zoom, pan, before and after, the brush's ring. Draws when something changed.
import { CpuSlicer } from './slice-cpu.js';
import { Slicer } from './slice.js';
import { areaOf, edit, state } from './state.js';

const MOST_ZOOM = 16, HOLD = 220; // screen pixels per photo pixel; ms until a still finger means "before"

export class View {
  /** `hooks`: stroke(kind, x, y) while painting, restored() after the picture was lost, rested(). */
  constructor(stage, canvas, ring, hooks) {
    Object.assign(this, { stage, canvas, ring, hooks, zoom: 1, x: 0, y: 0, fitted: true, quality: 1, frame: 0 });
    this.slow = 0; // mean ms of a frame while moving
    this.pointers = new Map();
    this._makeSlicer(false);
    new ResizeObserver(() => this.resize()).observe(stage);
    stage.addEventListener('pointerdown', (event) => this._down(event));
    stage.addEventListener('pointermove', (event) => this._move(event));
    for (const end of ['pointerup', 'pointercancel']) stage.addEventListener(end, (event) => this._up(event));
    stage.addEventListener('pointerleave', () => { ring.hidden = true; });
    stage.addEventListener('wheel', (event) => this._wheel(event), { passive: false });
    stage.addEventListener('dblclick', (event) => { if (!state.painting && this._free(event)) this.toggle(event); });
  }

  _makeSlicer(wide) {
    try {
      if (new URLSearchParams(location.search).has('cpu')) throw new Error('asked for');
      this.slicer = new Slicer(this.canvas, { wide, onrestore: () => this.hooks.restored() });
    } catch {
      this.slicer = new CpuSlicer(this.canvas);
      this.noGpu = true;
    }
  }

  /** The photo is shown as a whole. */
  setPhoto(photo) {
    this.size = photo ? [photo.source.width, photo.source.height] : null;
    const wide = photo?.source.space === 'display-p3' && matchMedia('(color-gamut: p3)').matches;
    if ('wide' in this.slicer && this.slicer.gl && 'drawingBufferColorSpace' in this.slicer.gl) {
      this.slicer.gl.drawingBufferColorSpace = wide ? 'display-p3' : 'srgb';
      this.slicer.wide = wide;
    }
    this.slicer.setPhoto(photo?.source ?? null);
    this.quality = 1;
    this.fit();
  }

  // Geometry, in pixels of the device: `zoom` of them for a pixel of the photo

  resize() {
    const ratio = devicePixelRatio || 1, box = this.stage.getBoundingClientRect();
    this.width = Math.max(Math.round(box.width * ratio), 1);
    this.height = Math.max(Math.round(box.height * ratio), 1);
    this.ratio = ratio;
    if (this.fitted) this.fit();
    else this._limit();
  }

  fitZoom() {
    if (!this.size) return 1;
    const room = 2 * 12 * this.ratio; // a little air around it
    const zoom = Math.min((this.width - room) / this.size[0], (this.height - room) / this.size[1]);
    return Math.max(Math.min(zoom, Math.max(3 * this.ratio, (96 * this.ratio) / Math.max(...this.size))), 1e-4);
  }

  fit() {
    if (!this.size || !this.width) return;
    this.fitted = true;
    this.zoom = this.fitZoom();
    [this.x, this.y] = [this.size[0] / 2, this.size[1] / 2];
    this.changed();
  }

  /** Zoom so that the place under (left, top), in CSS pixels of the stage, stays. */
  zoomTo(zoom, left = this.width / this.ratio / 2, top = this.height / this.ratio / 2) {
    if (!this.size) return;
    const [px, py] = this.placeAt(left, top), least = Math.min(this.fitZoom(), 1);
    this.zoom = Math.min(Math.max(zoom, least), MOST_ZOOM * this.ratio);
    this.fitted = Math.abs(this.zoom / this.fitZoom() - 1) < 1e-3;
    this.x = px - (left * this.ratio - this.width / 2) / this.zoom;
    this.y = py - (top * this.ratio - this.height / 2) / this.zoom;
    this._limit();
  }

  panBy(left, top) {
    this.fitted = false;
    this.x -= (left * this.ratio) / this.zoom;
    this.y -= (top * this.ratio) / this.zoom;
    this._limit();
  }

  /** Fit, or every pixel of the photo as one of the screen. */
  toggle(event) {
    if (!this.fitted) return this.fit();
    const box = this.stage.getBoundingClientRect();
    return event ? this.zoomTo(1, event.clientX - box.left, event.clientY - box.top) : this.zoomTo(1);
  }

  _limit() {
    if (!this.size) return;
    for (const [axis, k, length] of [['x', 0, this.width], ['y', 1, this.height]]) {
      const half = length / 2 / this.zoom, side = this.size[k];
      this[axis] = side * this.zoom <= length ? side / 2 : Math.min(Math.max(this[axis], half - 40 / this.zoom), side - half + 40 / this.zoom);
    }
    this.changed();
  }

  /** The photo's place under a point of the stage. */
  placeAt(left, top) {
    return [this.x + (left * this.ratio - this.width / 2) / this.zoom, this.y + (top * this.ratio - this.height / 2) / this.zoom];
  }

  /** The box of the stage, in CSS pixels, that the photo covers. */
  box() {
    const [w, h] = this.size.map((side) => (side * this.zoom) / this.ratio);
    const left = (this.width / 2 - this.x * this.zoom) / this.ratio, top = (this.height / 2 - this.y * this.zoom) / this.ratio;
    return { left, top, width: w, height: h };
  }

  // Drawing

  /** Something that is seen has changed: draw before the next frame. `still`: at full quality. */
  changed() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this._draw());
  }

  _draw() {
    this.frame = 0;
    if (!this.size || !this.width) return;
    const moving = state.moving || this.pointers.size > 0 || this.animating;
    const quality = moving ? this.quality : 1;
    const width = Math.max(Math.round(this.width * quality), 1), height = Math.max(Math.round(this.height * quality), 1);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    // At 100 % and above the photo's pixels lie on the screen's
    const step = this.width / width / this.zoom;
    const snap = (v) => (this.zoom >= 1 && quality === 1 ? Math.round(v * this.zoom) / this.zoom : v);
    const view = { x: snap(this.x - this.width / 2 / this.zoom), y: snap(this.y - this.height / 2 / this.zoom), step };
    this.shownView = view;
    let split = 0;
    if (state.before) split = 1e9;
    else if (state.split !== null) split = state.split * width;
    const target = areaOf(), overlay = target && !state.moving && state.showOverlay ? edit().areas.indexOf(target) : -1;
    const start = performance.now();
    this.slicer.draw(view, { split, clipping: state.clipping && !state.before, overlay });
    if (moving) {
      this.slicer.finish();
      const ms = performance.now() - start;
      this.slow = this.slow ? 0.7 * this.slow + 0.3 * ms : ms;
      if (this.slow > 24 && this.quality > 0.3) { this.quality *= 0.8; this.slow = 0; }
      else if (this.slow < 7 && this.quality < 1) { this.quality = Math.min(this.quality * 1.12, 1); this.slow = 0; }
      clearTimeout(this.resting);
      if (this.quality < 1) this.resting = setTimeout(() => { if (!state.moving) this.changed(); }, 120);
    }
    this.hooks.drawn(view);
  }

  /** Screen pixels per photo pixel, in percent: 100 is the photo's own size. */
  percent() {
    return Math.round(100 * this.zoom);
  }

  // The hand on the photo

  _free(event) {
    return this.size && !event.target.closest('button, input, a, .floating, .divider');
  }

  _down(event) {
    if (!this._free(event) || event.button > 1) return;
    const at = this._at(event);
    this.pointers.set(event.pointerId, at);
    try { this.stage.setPointerCapture(event.pointerId); } catch { /* gone already */ }
    if (this.pointers.size === 2) { // a pinch, whatever the first finger had begun
      clearTimeout(this.holding);
      if (this.stroking) { this.stroking = false; this.hooks.stroke('cancel'); }
      if (state.before && this.held) { this.held = state.before = false; }
      this.pinch = this._pinch();
      return;
    }
    if (state.painting && event.button === 0 && !this.spaced) {
      this.stroking = true;
      this.hooks.stroke('begin', ...this.placeAt(...at), event);
      return;
    }
    this.moved = 0;
    this.holding = setTimeout(() => { if (this.moved < 6) { this.held = state.before = true; this.changed(); } }, HOLD);
  }

  _move(event) {
    this._showRing(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const at = this._at(event);
    this.pointers.set(event.pointerId, at);
    if (this.pointers.size === 2 && this.pinch) {
      const now = this._pinch();
      this.panBy(now.x - this.pinch.x, now.y - this.pinch.y);
      this.zoomTo((this.zoom * now.far) / this.pinch.far, now.x, now.y);
      this.pinch = now;
    } else if (this.stroking) {
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.hooks.stroke('move', ...this.placeAt(...this._at(one)));
    } else if (!this.held) {
      this.moved += Math.hypot(at[0] - before[0], at[1] - before[1]);
      if (this.moved > 6 && !this.fitted) this.panBy(at[0] - before[0], at[1] - before[1]);
    }
  }

  _up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    clearTimeout(this.holding);
    this.pinch = null;
    if (this.stroking) {
      this.stroking = false;
      this.hooks.stroke(event.type === 'pointercancel' ? 'cancel' : 'end');
    }
    if (this.held) this.held = state.before = false;
    this.changed();
  }

  _wheel(event) {
    if (!this.size) return;
    event.preventDefault();
    const at = this._at(event), by = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002));
    if (state.painting && !event.ctrlKey && !event.metaKey) {
      this.hooks.stroke(event.shiftKey ? 'hardness' : 'size', event.deltaY < 0 || event.deltaX < 0 ? 1 : -1);
      this._showRing(event);
    } else {
      this.zoomTo(this.zoom * by, ...at);
    }
  }

  _at(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  _pinch() {
    const [[ax, ay], [bx, by]] = [...this.pointers.values()];
    return { x: (ax + bx) / 2, y: (ay + by) / 2, far: Math.max(Math.hypot(ax - bx, ay - by), 1) };
  }

  /** The brush's size as it will paint, around the pointer. */
  _showRing(event) {
    const painting = state.painting && this.size && event.pointerType !== 'touch' && this._free(event) && !this.spaced;
    this.ring.hidden = !painting;
    this.stage.classList.toggle('paints', !!painting);
    if (!painting) return;
    const [left, top] = this._at(event), side = (2 * this.brushRadius() * this.zoom) / this.ratio;
    Object.assign(this.ring.style, { left: `${left}px`, top: `${top}px`, width: `${side}px`, height: `${side}px` });
    this.ring.style.setProperty('--core', `${100 * state.painting.hardness}%`);
    this.ring.classList.toggle('erases', state.painting.erase);
  }

  /** In the photo's pixels: a share of the screen, so that zooming in makes it finer. */
  brushRadius() {
    return (state.painting.size * this.ratio) / this.zoom;
  }
}

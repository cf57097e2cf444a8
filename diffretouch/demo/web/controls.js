// Sliders that follow a mouse at once and a finger only sideways, with a number beside them that is always what is used.

/**
 * A slider in `place`. `move(value)` while it is in the hand, `done(value)` when it is let go; `limited(text)` is told
 * when a number that was typed lay outside.
 */
export class Slider {
  constructor(place, { id, label, ends = ['', ''], least = -1, most = 1, start = 0, step = 0.01, digits = 2, move, done, limited }) {
    Object.assign(this, { label, least, most, start, step, digits, value: start, onmove: move, ondone: done, limited });
    this.root = document.createElement('div');
    this.root.className = 'slider';
    this.root.id = `slider-${id}`;
    const name = document.createElement('label'), low = document.createElement('span'), high = document.createElement('span');
    this.number = document.createElement('input');
    this.range = document.createElement('input');
    this.track = document.createElement('div');
    Object.assign(name, { htmlFor: `number-${id}`, textContent: label, title: 'Double click: back to its start' });
    Object.assign(this.number, { type: 'text', inputMode: 'decimal', id: `number-${id}`, autocomplete: 'off' });
    Object.assign(this.range, { type: 'range', id: `range-${id}`, step: String(step) });
    this.range.setAttribute('aria-label', ends[0] ? `${label}, ${ends[0]} to ${ends[1]}` : label);
    this.track.className = 'track';
    [low.textContent, high.textContent] = ends;
    [low.className, high.className] = ['low', 'high'];
    this.track.append(this.range);
    this.root.append(name, this.number, this.track, low, high);
    place.append(this.root);
    this.scale(least, most);
    this.range.addEventListener('input', () => this._hand(Number(this.range.value)));
    this.range.addEventListener('change', () => this._letGo());
    this.range.addEventListener('keydown', (event) => this._key(event));
    this.number.addEventListener('change', () => this._typed());
    this.number.addEventListener('keydown', (event) => {
      const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (by) { event.preventDefault(); this._by(by * (event.shiftKey ? 10 : 1)); }
      if (event.key === 'Enter') this.number.select();
    });
    this.number.addEventListener('focus', () => this.number.select());
    for (const one of [name, this.track]) one.addEventListener('dblclick', (event) => { event.preventDefault(); this.reset(); });
    this.track.addEventListener('pointerdown', (event) => this._down(event));
    this.track.addEventListener('pointermove', (event) => this._drag(event));
    for (const end of ['pointerup', 'pointercancel']) this.track.addEventListener(end, (event) => this._up(event));
    name.addEventListener('pointerup', (event) => this._tap(event));
  }

  scale(least, most) {
    Object.assign(this, { least, most });
    Object.assign(this.range, { min: String(least), max: String(most) });
    this.set(this.value);
  }

  /** Show a value; nobody is told. */
  set(value) {
    this.value = value;
    this.range.value = String(value);
    const text = this._text(value), at = (v) => (100 * (Math.min(Math.max(v, this.least), this.most) - this.least)) / (this.most - this.least);
    if (this.number.value !== text) this.number.value = text;
    this.range.setAttribute('aria-valuetext', text);
    const [from, to] = [at(Math.min(Math.max(0, this.least), this.most)), at(value)].sort((a, b) => a - b);
    this.root.style.setProperty('--from', `${from}%`);
    this.root.style.setProperty('--to', `${to}%`);
    this.root.style.setProperty('--at', `${at(value)}%`);
    this.root.classList.toggle('set', value !== this.start);
  }

  disable(off) {
    this.range.disabled = this.number.disabled = off;
    this.root.classList.toggle('off', off);
  }

  reset() {
    if (this.range.disabled) return;
    this.set(this.start);
    this.onmove(this.start);
    this.ondone(this.start);
  }

  _text(value) {
    return String(Number(value.toFixed(this.digits))).replace('-', '−');
  }

  _hand(value) {
    value = Number(Math.min(Math.max(value, this.least), this.most).toFixed(4));
    if (value === this.value) return;
    this.set(value);
    this.onmove(value);
  }

  _letGo() {
    this.ondone(this.value);
  }

  _by(steps) {
    this._hand(Math.round((this.value + steps * this.step) / this.step) * this.step);
    this._letGo();
  }

  _key(event) {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (by && event.shiftKey) { event.preventDefault(); this._by(by * 10); }
    if (event.key === 'Delete' || event.key === 'Backspace') { event.preventDefault(); this.reset(); }
  }

  _typed() {
    const value = Number(this.number.value.trim().replace('−', '-').replace(',', '.'));
    if (!Number.isFinite(value) || !this.number.value.trim()) {
      this.limited(`${this.label}: “${this.number.value}” is no number, ${this._text(this.value)} stays.`);
      this.set(this.value);
      return;
    }
    const inside = Math.min(Math.max(value, this.least), this.most);
    this._hand(inside);
    this.set(this.value);
    if (inside !== value) {
      this.limited(`${this.label} goes from ${this._text(this.least)} to ${this._text(this.most)}: ${this._text(inside)} is used.`);
    }
    this._letGo();
  }

  // The hand: a mouse takes the place it is put on; a finger that scrolls over a slider leaves it as it is

  _down(event) {
    if (this.range.disabled || event.button !== 0) return;
    event.preventDefault();
    const touch = event.pointerType === 'touch';
    if (!touch) this.range.focus({ preventScroll: true });
    this.hand = { id: event.pointerId, x: event.clientX, y: event.clientY, value: this.value, taken: !touch, touch };
    if (!touch) {
      this.track.setPointerCapture(event.pointerId);
      const box = this.range.getBoundingClientRect(), thumb = box.left + (box.width * (this.value - this.least)) / (this.most - this.least);
      if (Math.abs(event.clientX - thumb) > 10) {
        this._hand(this._at(event.clientX));
        this.hand.value = this.value;
      }
    }
  }

  _drag(event) {
    const hand = this.hand;
    if (!hand || hand.id !== event.pointerId) return;
    if (!hand.taken) {
      const [dx, dy] = [Math.abs(event.clientX - hand.x), Math.abs(event.clientY - hand.y)];
      if (dy > 10 && dy > dx) { this.hand = null; return; }
      if (dx < 8) return;
      Object.assign(hand, { taken: true, x: event.clientX });
      this.track.setPointerCapture(event.pointerId);
    }
    const box = this.range.getBoundingClientRect(), fine = event.shiftKey ? 0.2 : 1;
    const value = hand.value + (fine * (event.clientX - hand.x) * (this.most - this.least)) / box.width;
    this._hand(Math.round(value / this.step) * this.step);
  }

  _up(event) {
    const hand = this.hand;
    if (!hand || hand.id !== event.pointerId) return;
    this.hand = null;
    if (hand.taken) this._letGo();
    else this._tap(event);
  }

  _tap(event) { // two taps by a finger
    if (event.pointerType !== 'touch') return;
    if (event.timeStamp - (this.tapped ?? -1e9) < 400) this.reset();
    this.tapped = event.timeStamp;
  }

  _at(x) {
    const box = this.range.getBoundingClientRect();
    const value = this.least + ((x - box.left) / box.width) * (this.most - this.least);
    return Math.round(value / this.step) * this.step;
  }
}

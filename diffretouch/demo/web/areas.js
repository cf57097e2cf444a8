// Areas with sliders of their own: choosing, painting, ranges of tones and colours, and their controls.
import { Slider } from './controls.js';
import { commit, propose } from './history.js';
import { fromPicture, maskFor, refine, Stroke } from './masks.js';
import { areaOf, edit, newId, RANGES, state, withArea } from './state.js';

const find = (id) => document.getElementById(id);

/** `app`: update(), tell(text, isError), show(), picture, view. */
export function layAreas(app) {
  let stroke = null, frame = 0;

  function add(area) {
    const own = edit(), most = state.about.limits.areas;
    if (own.areas.length >= most) throw new Error(`There can be ${most} areas: remove one first.`);
    const taken = new Set(own.areas.map((one) => one.name)), base = area.name ?? 'Area';
    let name = base;
    for (let n = area.name ? 2 : 1; taken.has(name) || (n === 1 && !area.name); n++) name = `${base} ${n}`;
    const fresh = { id: newId(), c: [...own.c], invert: false, ...area, name };
    commit(state.active, { ...own, areas: [...own.areas, fresh] });
    choose(fresh.id);
    app.update();
  }

  function choose(id) {
    state.target = id;
    const area = areaOf();
    state.showOverlay = !!area;
    state.painting = area?.kind === 'paint' ? { size: 40, hardness: 0.5, ...state.brush, erase: false } : null;
    app.show();
    app.view.changed();
  }

  const tried = (work) => async (...values) => {
    try {
      await work(...values);
    } catch (error) {
      app.tell(error.message, true);
    }
  };

  find('paint').addEventListener('click', tried(() => add({ kind: 'paint', mask: maskFor(state.active.source), raw: null, follow: true })));
  find('range').addEventListener('change', tried(() => {
    const name = find('range').value, known = RANGES[name];
    find('range').value = '';
    if (!known) return;
    const there = edit().areas.find((area) => area.kind === known.kind && area.low === known.low && area.high === known.high);
    if (there) choose(there.id);
    else add({ name, ...known });
  }));
  for (const name of Object.keys(RANGES)) find('range').append(new Option(name));
  find('load-mask').addEventListener('click', () => find('mask-file').click());
  find('mask-file').addEventListener('change', tried(async () => {
    const file = find('mask-file').files[0];
    find('mask-file').value = '';
    if (!file) return;
    const { mask, note } = await fromPicture(file, file.name, state.active.source);
    add({ name: 'Mask', kind: 'paint', mask, raw: null, follow: false });
    app.tell(note);
  }));

  /** The hand on the photo while an area is painted: see `View`. */
  function paint(kind, x, y) {
    const area = areaOf(), brush = state.painting;
    if (!area || !brush) return;
    if (kind === 'size') { brush.size = Math.min(Math.max(brush.size * 1.12 ** x, 2), 600); keepBrush(); return; }
    if (kind === 'hardness') { brush.hardness = Math.min(Math.max(brush.hardness + 0.1 * x, 0), 1); keepBrush(); return; }
    if (kind === 'begin') {
      const base = area.raw ?? area.mask;
      stroke = new Stroke(base, { radius: (app.view.brushRadius() * base.width) / app.view.size[0], hardness: brush.hardness, erase: brush.erase });
      state.showOverlay = true;
      propose(state.active, withArea(edit(), area.id, { mask: stroke.mask, raw: null }));
      app.update();
    }
    if (kind === 'cancel') { stroke = null; state.active.draft = null; app.update(); return; }
    if (!stroke) return;
    if (kind === 'begin' || kind === 'move') {
      const { width, height } = stroke.mask, [w, h] = app.view.size;
      const box = stroke.to((x * width) / w, (y * height) / h);
      const layer = edit().areas.filter((one) => one.kind === 'paint').findIndex((one) => one.id === area.id);
      app.view.slicer.touchMask(layer, stroke.mask, box);
      cancelAnimationFrame(frame);
      app.view.changed();
      return;
    }
    const mask = { ...stroke.mask }, painted = mask.data.some((v) => v);
    stroke = null;
    const fine = area.follow && painted ? refine(mask, app.picture.small(512, true)) : mask;
    commit(state.active, withArea(edit(), area.id, { mask: fine, raw: fine === mask ? null : mask }));
    app.update();
    app.show();
  }

  function keepBrush() {
    const { size, hardness } = state.painting;
    state.brush = { size, hardness };
    app.view.changed();
    show();
  }

  // What an area has beside its four sliders

  let shownFor = null, parts = {};

  function show() {
    const place = find('area-tools'), area = areaOf();
    place.hidden = !area;
    const form = area && `${area.id}${area.kind}`;
    if (form !== shownFor) {
      place.replaceChildren();
      parts = area ? lay(place, area) : {};
      shownFor = form;
    }
    if (!area) return;
    if (area.kind === 'paint') {
      parts.erase.setAttribute('aria-pressed', String(!!state.painting?.erase));
      parts.draw.setAttribute('aria-pressed', String(!!state.painting && !state.painting.erase));
      parts.follow.checked = area.follow;
      if (state.painting) {
        parts.size.set(Math.round(state.painting.size));
        parts.hardness.set(Number(state.painting.hardness.toFixed(2)));
      }
    } else {
      parts.low.set(area.low);
      parts.high.set(area.high);
      parts.softness.set(area.softness);
    }
    parts.invert.checked = area.invert;
    parts.overlay.checked = state.showOverlay;
  }

  function lay(place, area) {
    const id = area.id, made = {};
    const row = () => place.appendChild(Object.assign(document.createElement('div'), { className: 'row' }));
    const button = (to, text, happens) => {
      const one = Object.assign(document.createElement('button'), { type: 'button', textContent: text });
      one.addEventListener('click', happens);
      to.append(one);
      return one;
    };
    const check = (to, text, happens) => {
      const label = Object.assign(document.createElement('label'), { className: 'check' });
      const one = Object.assign(document.createElement('input'), { type: 'checkbox' });
      one.addEventListener('change', () => happens(one.checked));
      label.append(one, text);
      to.append(label);
      return one;
    };
    const change = (values) => { commit(state.active, withArea(edit(), id, values)); app.update(); app.show(); };
    if (area.kind === 'paint') {
      const tools = row();
      const brush = (erase) => { state.painting = { size: 40, hardness: 0.5, ...state.brush, erase }; state.showOverlay = true; app.show(); };
      made.draw = button(tools, 'Brush', () => brush(false));
      made.erase = button(tools, 'Erase', () => brush(true));
      button(tools, 'Clear', () => change({ mask: maskFor(state.active.source), raw: null }));
      button(tools, 'Done', () => { state.painting = null; state.showOverlay = false; app.show(); app.view.changed(); });
      const limited = (text) => app.tell(text);
      const none = () => {};
      made.size = new Slider(place, { id: 'brush', label: 'Brush size', least: 2, most: 300, start: 40, step: 1, digits: 0, limited, done: none,
        move: (v) => { if (state.painting) { state.painting.size = v; keepBrush(); } } });
      made.hardness = new Slider(place, { id: 'hardness', label: 'Hardness', least: 0, most: 1, start: 0.5, limited, done: none,
        move: (v) => { if (state.painting) { state.painting.hardness = v; keepBrush(); } } });
      made.follow = check(row(), 'Edges follow the photo’s', (follow) => {
        const own = areaOf(), raw = own.raw ?? own.mask;
        const fine = follow && raw.data.some((v) => v) ? refine(raw, app.picture.small(512, true)) : raw;
        change({ follow, mask: fine, raw: fine === raw ? null : raw });
      });
    } else {
      const tone = area.kind === 'tone', most = tone ? 1 : 360, step = tone ? 0.01 : 1, digits = tone ? 2 : 0;
      for (const [name, label, start, top] of [['low', 'From', 0, most], ['high', 'To', most, most], ['softness', 'Feather', tone ? 0.15 : 20, tone ? 1 : 180]]) {
        const values = (v) => {
          const own = areaOf(id), next = { [name]: v };
          if (tone && name === 'low') next.low = Math.min(v, own.high - step);
          if (tone && name === 'high') next.high = Math.max(v, own.low + step);
          if (!tone && name !== 'softness' && v === own[name === 'low' ? 'high' : 'low']) next[name] = v ? v - 1 : 1;
          return withArea(edit(), id, next);
        };
        made[name] = new Slider(place, {
          id: `area-${name}`, label: name === 'softness' ? label : `${label}, ${tone ? 'tone' : 'degrees of hue'}`, least: 0, most: top, start, step, digits,
          limited: (text) => app.tell(text),
          move: (v) => { state.showOverlay = true; propose(state.active, values(v)); app.update(); },
          done: () => { commit(state.active); app.update(); app.show(); },
        });
      }
    }
    const last = row();
    made.invert = check(last, 'Invert', (invert) => change({ invert }));
    made.overlay = check(last, 'Show where', (on) => { state.showOverlay = on; app.view.changed(); });
    button(last, 'Remove this area', () => {
      commit(state.active, { ...edit(), areas: edit().areas.filter((one) => one.id !== id) });
      choose('whole');
      app.update();
    }).id = 'remove';
    return made;
  }

  function showTargets() {
    const place = find('targets'), own = edit(), all = own ? [{ id: 'whole', name: 'Whole photo' }, ...own.areas] : [];
    place.hidden = all.length < 2;
    place.replaceChildren(...all.map(({ id, name }) => {
      const one = Object.assign(document.createElement('button'), { type: 'button', textContent: name });
      one.setAttribute('role', 'radio');
      one.setAttribute('aria-checked', String(id === state.target));
      one.tabIndex = id === state.target ? 0 : -1;
      one.addEventListener('click', () => { choose(id); find('targets').querySelector('[aria-checked="true"]')?.focus(); });
      one.addEventListener('keydown', (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by) return;
        event.preventDefault();
        const at = all.findIndex((other) => other.id === state.target);
        choose(all[(at + by + all.length) % all.length].id);
        find('targets').querySelector('[aria-checked="true"]').focus();
      });
      return one;
    }));
  }

  return { paint, choose, show() { if (edit() && state.target !== 'whole' && !areaOf()) { state.target = 'whole'; state.painting = null; } showTargets(); show(); } };
}

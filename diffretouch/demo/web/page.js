// The page: what its buttons, sliders and keys do to the one state, and what of the state they show.
import { layAreas } from './areas.js';
import { Slider } from './controls.js';
import { OnnxEngine } from './engine-onnx.js';
import { ServerEngine } from './engine-server.js';
import { layFiles } from './files.js';
import { beginMemory, canStep, commit, propose, step } from './history.js';
import { Picture } from './picture.js';
import { asked, download, fillFormats, fillTables, savePhoto, savePreset, saveSheet, saveTable } from './save.js';
import { areaOf, ATTRIBUTES, edit, newEdit, newId, portable, reach, SLIDERS, state, targetC, withC } from './state.js';
import { View } from './view.js';

const find = (id) => document.getElementById(id);
const app = { update, show, tell, busy, widen, commit: commitNow };
const sliders = {};
let telling = 0, busying = 0, reconnecting = 0, shownPhoto = null;

// Words for the person

function tell(text, isError = false) {
  const place = find('message');
  clearTimeout(telling);
  place.hidden = !text;
  place.classList.toggle('error', isError);
  place.querySelector('span').textContent = text;
  if (text && !isError) telling = setTimeout(() => { place.hidden = true; }, 9000);
}
find('message').querySelector('button').addEventListener('click', () => tell(''));

function busy(text, after = 300) {
  clearTimeout(busying);
  if (!text) { find('busy').hidden = true; return; }
  busying = setTimeout(() => {
    find('busy').querySelector('span').textContent = text;
    find('busy').hidden = false;
  }, after);
}

function failed(error) {
  if (error.name === 'AbortError') return;
  if (error.away) {
    tell(`${error.message} What you do is kept here; it goes on when ${state.engine.called.toLowerCase()} is back.`, true);
    reconnect();
  } else {
    tell(error.message, true);
  }
}

function reconnect() {
  if (reconnecting) return;
  reconnecting = setInterval(async () => {
    try {
      await state.engine.begin();
    } catch {
      return;
    }
    clearInterval(reconnecting);
    reconnecting = 0;
    tell(`${state.engine.called} is back.`);
    update();
  }, 1500);
}

/** A long work with its words; failures are told. */
async function work(text, happens) {
  busy(text);
  try {
    const notes = await happens();
    if (notes?.length) tell(notes.join(' '));
  } catch (error) {
    failed(error);
  } finally {
    busy(null);
  }
}

// The edit

function update() {
  app.picture.update();
  const photo = state.active;
  find('undo').disabled = !canStep(photo, -1) && !photo?.draft;
  find('redo').disabled = !canStep(photo, 1);
}

function commitNow(own) {
  if (!state.active) return;
  if (commit(state.active, own)) closeFour();
  update();
  show();
}

function stepBy(by) {
  if (!state.active || !step(state.active, by)) return;
  if (state.target !== 'whole' && !areaOf()) { state.target = 'whole'; state.painting = null; }
  const own = edit(), values = [...own.c, ...own.areas.flatMap((area) => area.c)];
  if (values.some((v) => Math.abs(v) > 1) || own.strength > 1) widen(true);
  update();
  show();
}

function slid(own) {
  state.moving = true;
  state.showOverlay = false; // the area was seen; what happens in it is looked at now
  propose(state.active, own);
  update();
}

function letGo() {
  state.moving = false;
  if (!state.active) return;
  commit(state.active);
  closeFour();
  update();
  show();
}

for (const [i, name] of ATTRIBUTES.entries()) {
  const [label, ...ends] = SLIDERS[name];
  sliders[name] = new Slider(find('sliders'), {
    id: name, label, ends, limited: (text) => tell(text), done: letGo,
    move: (v) => state.active && slid(withC(edit(), state.target, targetC().map((old, k) => (k === i ? v : old)))),
  });
}
sliders.strength = new Slider(find('sliders'), {
  id: 'strength', label: 'Amount', ends: ['photo', 'full retouch'], least: 0, most: 1, start: 1, limited: (text) => tell(text), done: letGo,
  move: (v) => state.active && slid({ ...edit(), strength: v }),
});

function widen(on) {
  state.wide = on;
  find('wide').checked = on;
  const { c, strength } = reach();
  for (const name of ATTRIBUTES) sliders[name].scale(-c, c);
  sliders.strength.scale(0, strength);
}
find('wide').addEventListener('change', () => {
  widen(find('wide').checked);
  const own = edit(), { c, strength } = reach(), inside = (values) => values.map((v) => Math.min(Math.max(v, -c), c));
  if (!own) return;
  commitNow({ ...own, c: inside(own.c), strength: Math.min(own.strength, strength), areas: own.areas.map((area) => ({ ...area, c: inside(area.c) })) });
});

// What is shown of the state

function closeFour() { find('four').hidden = true; }

function show() {
  const photo = state.active, own = edit(), model = own && state.about.models[own.model];
  for (const id of ['under']) find(id).hidden = !photo;
  find('empty').hidden = !!photo;
  find('stage').classList.toggle('empty-stage', !photo);
  find('stage').dataset.state = photo ? 'photo' : 'empty';
  find('canvas').setAttribute('aria-label', photo ? `${photo.name}, ${state.before ? 'before' : 'retouched'}` : 'No photo is open');
  find('name').textContent = photo ? `${photo.name}, ${photo.size}` : '';
  document.title = photo ? `${photo.name} – diffretouch` : 'diffretouch';
  if (own) {
    if (own.areas.length === 0 || areaOf()) targetC().forEach((v, i) => sliders[ATTRIBUTES[i]].set(v));
    else own.c.forEach((v, i) => sliders[ATTRIBUTES[i]].set(v));
    sliders.strength.set(own.strength);
    find('model').value = own.model;
    if (document.activeElement !== find('seed')) find('seed').value = String(own.seed);
  }
  if (photo !== shownPhoto) closeFour();
  shownPhoto = photo;
  for (const one of find('four').querySelectorAll('[data-seed]')) one.setAttribute('aria-pressed', String(Number(one.dataset.seed) === own?.seed));
  const steered = !own || (!own.table && model?.steered !== false);
  for (const name of ATTRIBUTES) sliders[name].disable(!steered);
  for (const id of ['seed', 'another', 'show-four', 'paint', 'load-mask', 'range', 'save-sheet']) find(id).disabled = !steered || (!photo && id !== 'seed');
  find('save-preset').disabled = !photo || !!own?.table;
  for (const id of ['save', 'save-table', 'reset', 'copy', 'apply-all', 'save-all']) find(id).disabled = !photo;
  find('paste').disabled = !photo || !state.copied;
  find('apply-all').hidden = state.photos.length < 2;
  find('undo').disabled = !canStep(photo, -1);
  find('redo').disabled = !canStep(photo, 1);
  find('before').setAttribute('aria-pressed', String(state.before));
  find('clip').setAttribute('aria-pressed', String(state.clipping));
  find('divide').setAttribute('aria-pressed', String(state.split !== null));
  find('badge').hidden = !photo || !state.before;
  find('divider').hidden = !photo || state.split === null;
  if (!photo) drawNothing();
  app.areas?.show();
  app.files?.strip();
}

function drawNothing() {
  const canvas = find('histogram').querySelector('canvas');
  canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
  app.view.canvas.width = app.view.canvas.width; // empty
}

function drawn() {
  find('percent').textContent = `${app.view.percent()} %`;
  if (state.split !== null) {
    Object.assign(find('divider').style, { left: `${100 * state.split}%` });
    find('divider').setAttribute('aria-valuenow', Math.round(100 * state.split));
  }
  if (find('badge').hidden === state.before) { find('badge').hidden = !state.before; find('before').setAttribute('aria-pressed', String(state.before)); }
  app.picture.drawn();
}

// Buttons

const steps = { undo: -1, redo: 1 };
for (const [id, by] of Object.entries(steps)) find(id).addEventListener('click', () => stepBy(by));
find('model').addEventListener('change', () => {
  const model = find('model').value;
  if (edit()) commitNow({ ...edit(), model, table: null });
});
find('reset').addEventListener('click', () => {
  state.target = 'whole';
  state.painting = null;
  commitNow({ ...newEdit(edit().model), seed: edit().seed });
});
const copyLook = () => { state.copied = portable(edit()); show(); tell('The look is copied. Open another photo and paste it.'); };
const fresh = (own) => ({ ...own, areas: own.areas.map((area) => ({ ...area, id: newId() })) });
const pasteLook = () => { if (state.copied && state.active) { commitNow(fresh(state.copied)); tell('The look is pasted.'); } };
find('copy').addEventListener('click', copyLook);
find('paste').addEventListener('click', pasteLook);
find('apply-all').addEventListener('click', () => {
  const own = portable(edit());
  for (const photo of state.photos) if (photo !== state.active) commit(photo, fresh(own));
  tell(`The look is on all ${state.photos.length} photos.${own.areas.length < edit().areas.length ? ' Painted areas stay on this one.' : ''}`);
});
find('seed').addEventListener('change', () => {
  const typed = find('seed').value.trim(), seed = Number(typed), most = 2 ** 31;
  if (!/^\d+$/.test(typed) || seed > most) tell(`Variations are whole numbers from 0 to ${most}: ${edit()?.seed ?? 0} stays.`);
  else if (edit()) commitNow({ ...edit(), seed });
  find('seed').value = String(edit()?.seed ?? 0);
});
find('another').addEventListener('click', () => commitNow({ ...edit(), seed: 1 + Math.floor(Math.random() * 9999) }));
find('show-four').addEventListener('click', () => work('Making variations', async () => {
  const pictures = await app.picture.four();
  find('four').querySelector('.choices').replaceChildren(...pictures.map(({ seed, pixels, width, height }) => {
    const button = Object.assign(document.createElement('button'), { type: 'button' });
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    canvas.getContext('2d').putImageData(new ImageData(pixels, width, height), 0, 0);
    button.dataset.seed = seed;
    button.setAttribute('aria-label', `Variation ${seed}`);
    button.append(canvas, Object.assign(document.createElement('span'), { className: 'where-wide', textContent: 'Variation ' }), String(seed));
    button.addEventListener('click', () => { commit(state.active, { ...edit(), seed }); update(); show(); }); // the others can be tried next
    return button;
  }));
  find('four').hidden = false;
  state.showOverlay = false;
  app.view.changed();
  show();
}));
find('four-close').addEventListener('click', closeFour);
find('fit').addEventListener('click', () => app.view.fit());
find('full').addEventListener('click', () => app.view.zoomTo(1));
find('in').addEventListener('click', () => app.view.zoomTo(app.view.zoom * 1.4));
find('out').addEventListener('click', () => app.view.zoomTo(app.view.zoom / 1.4));
find('before').addEventListener('click', () => { state.before = !state.before; show(); app.view.changed(); });
find('clip').addEventListener('click', () => { state.clipping = !state.clipping; show(); app.view.changed(); });
find('divide').addEventListener('click', () => { state.split = state.split === null ? 0.5 : null; show(); app.view.changed(); });
find('help').addEventListener('click', () => find('keys').showModal());
find('measured').addEventListener('toggle', () => app.picture?.measured());
find('format').addEventListener('change', () => { find('quality-line').hidden = ['.png', '.tif'].includes(find('format').value); });
find('save').addEventListener('click', () => work('Retouching at full size', () => savePhoto(app, find('format').value, quality())));
find('save-all').addEventListener('click', () => work('Retouching all photos', async () => {
  const earlier = state.active, all = [...state.photos], failures = [];
  for (const photo of all) {
    const failure = photo === state.active ? null : await app.files.show(photo);
    try {
      if (failure) throw new Error(failure);
      await savePhoto(app, find('format').value, quality());
    } catch (error) {
      failures.push(error.message);
    }
  }
  await app.files.show(earlier);
  const saved = all.length - failures.length;
  return [`${saved === all.length ? saved : `${saved} of ${all.length}`} photos are in your downloads.`, ...failures];
}));
find('save-table').addEventListener('click', () => work('Making the look', () => saveTable(app, find('table-kind').value)));
find('save-sheet').addEventListener('click', () => work('Making the contact sheet', () => saveSheet(app)));
find('save-preset').addEventListener('click', () => work('', () => savePreset()));

function quality() {
  const typed = find('quality').value.trim();
  if (!typed) return null;
  const value = Math.round(Number(typed)), inside = Math.min(Math.max(value, 1), 100);
  if (!Number.isFinite(value)) { find('quality').value = ''; tell('Quality is a number from 1 to 100: the photo’s own is used.'); return null; }
  if (inside !== value) tell(`Quality goes from 1 to 100: ${inside} is used.`);
  find('quality').value = String(inside);
  return inside;
}

find('divider').addEventListener('pointerdown', (event) => { find('divider').setPointerCapture(event.pointerId); event.preventDefault(); find('divider').focus(); });
find('divider').addEventListener('pointermove', (event) => {
  if (!find('divider').hasPointerCapture(event.pointerId)) return;
  const box = find('stage').getBoundingClientRect();
  state.split = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  app.view.changed();
});
find('divider').addEventListener('keydown', (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  event.stopPropagation();
  state.split = Math.min(Math.max(state.split + by * (event.shiftKey ? 0.1 : 0.01), 0), 1);
  app.view.changed();
});

// Keys

const KEYS = {
  j: () => find('clip').click(), d: () => find('divide').click(), 0: () => app.view.fit(), f: () => app.view.fit(), 1: () => app.view.zoomTo(1),
  '+': () => find('in').click(), '=': () => find('in').click(), '-': () => find('out').click(), '?': () => find('help').click(),
  '[': () => app.areas.paint('size', -1), ']': () => app.areas.paint('size', 1), '{': () => app.areas.paint('hardness', -1), '}': () => app.areas.paint('hardness', 1),
  e: () => { if (state.painting) { state.painting.erase = !state.painting.erase; app.areas.show(); } },
  o: () => { if (areaOf()) { state.showOverlay = !state.showOverlay; app.areas.show(); app.view.changed(); } },
  Escape: () => { closeFour(); tell(''); if (state.painting) { state.painting = null; state.showOverlay = false; app.areas.show(); app.view.changed(); } },
  PageDown: () => go(1), PageUp: () => go(-1),
};
const go = (by) => { const next = state.photos[state.photos.indexOf(state.active) + by]; if (next) app.files.show(next); };
const typing = (target) => target.closest('input:not([type=range]):not([type=checkbox]), textarea, select, dialog');

addEventListener('keydown', (event) => {
  const command = event.ctrlKey || event.metaKey, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (typing(event.target)) return;
  if (command && (key === 'z' || key === 'y')) { event.preventDefault(); stepBy(key === 'y' || event.shiftKey ? 1 : -1); return; }
  if (command && key === 'c' && state.active && !String(getSelection())) { event.preventDefault(); copyLook(); return; }
  if (command && key === 'v' && state.copied) { pasteLook(); return; }
  if (command || event.altKey || !state.active) return;
  if (key === 'b' && !event.repeat) { state.before = true; show(); app.view.changed(); return; }
  if (key === ' ' && !event.target.closest('button, summary, input')) { event.preventDefault(); app.view.spaced = true; find('ring').hidden = true; return; }
  const arrows = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
  if (arrows && event.target === find('stage')) { event.preventDefault(); app.view.panBy(...arrows); return; }
  if (KEYS[event.key] ?? KEYS[key]) { if (event.target.closest('[type=range]') && event.key.startsWith('Page')) return; (KEYS[event.key] ?? KEYS[key])(); }
});
addEventListener('keyup', (event) => {
  if (event.key.toLowerCase() === 'b' && state.before) { state.before = false; show(); app.view.changed(); }
  if (event.key === ' ') app.view.spaced = false;
});
addEventListener('blur', () => { if (state.before) { state.before = false; show(); app.view.changed(); } });

// Begin

async function begin() {
  app.view = new View(find('stage'), find('canvas'), find('ring'), {
    stroke: (...values) => app.areas.paint(...values), drawn, restored: () => { app.picture.restore(); },
  });
  app.picture = new Picture(app.view, find('stage'), {
    failed, busy, changed: show, answered: () => {}, thumb: () => app.files.thumb(),
  });
  app.areas = layAreas(app);
  const alone = document.documentElement.dataset.engine === 'onnx'; // laid so by `diffretouch demo --build`
  state.engine = alone ? new OnnxEngine() : new ServerEngine();
  state.engine.progress = (share) => { if (state.active && !app.picture.shown) busy(`Fetching the model, ${Math.round(100 * share)} %`, 0); };
  try {
    state.about = await state.engine.begin();
  } catch (error) {
    tell(error.message, true);
    return;
  }
  find('model').replaceChildren(...Object.keys(state.about.models).map((label) => new Option(label)));
  const { mb, mp } = state.about.limits;
  const away = !alone && !/^(localhost|127\.|\[::1\])/.test(location.hostname);
  find('limits').textContent = `${state.engine.reads}; up to ${mb} MB and ${mp} megapixels. `
    + (away ? `They go to ${location.hostname} and nowhere else.` : 'They stay on this device.');
  fillFormats(find('format'));
  fillTables(find('table-kind'));
  app.files = layFiles(app);
  if (app.view.noGpu) tell('This browser has no WebGL 2: the picture is made by the processor, smaller while it moves.');
  show();
  document.body.dataset.ready = '1';
  await beginMemory((text) => tell(text, true));
  if (!(await app.files.restore())) await app.files.offerOthers();
}
begin();

export { app, asked, download };

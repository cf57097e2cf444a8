// Photos that are open: opened by button, drop, paste or sample; shown as a strip; kept and found again after a reload.
import { forget, recall, remember, rememberFile, revive } from './history.js';
import { decode, embeddedPreview, isPlain, rgbSource, sizeOf } from './photo.js';
import { edit, fromPreset, newEdit, newId, state } from './state.js';
import { parseCube } from './table.js';

const SAMPLES = {
  colosseum: 'The Colosseum in Rome',
  desert: 'A sand dune with hikers under a clear sky',
  'canyon-wren': 'A small bird on a rock',
};
const CAMERA = /\.(heic|heif|hif|dng|cr2|cr3|nef|nrw|arw|raf|orf|rw2|pef|srw|3fr|iiq)$/i;
const find = (id) => document.getElementById(id);

/** `app`: picture, areas, tell, busy, show, update, commit. */
export function layFiles(app) {
  let turn = 0; // of what was opened last: an earlier one that is slower does not come over it

  async function open(files, areLooks = false) {
    const photos = [], refused = [];
    for (const file of files) {
      const name = file.name || 'photo';
      if (areLooks || /\.(json|cube|xmp|clf)$/i.test(name)) { await openLook(file, name); continue; }
      const limit = state.about.limits.mb;
      if (file.size > limit * 1e6) { refused.push(`${name} has ${Math.round(file.size / 1e6)} MB; the most is ${limit} MB.`); continue; }
      if (!file.size) { refused.push(`${name} is empty: there is no photo in it.`); continue; }
      photos.push({ id: newId(), name, blob: file, edits: [newEdit(find('model').value)], at: 0, draft: null, keptMasks: new Set() });
    }
    let shown = false;
    for (const photo of photos) {
      state.photos.push(photo);
      if (shown) { rememberFile(photo); continue; }
      const failure = await show(photo, true);
      if (failure) refused.push(failure);
      else shown = true;
    }
    if (refused.length) app.tell(refused.join(' '), true);
    strip();
  }

  async function openLook(file, name) {
    try {
      if (!state.active) throw new Error(`${name}: open a photo first.`);
      if (file.size > 40e6) throw new Error(`${name} is too large for a look.`);
      const json = /\.json$/i.test(name), cube = /\.cube$/i.test(name);
      if (!json && !cube && !state.engine.look) throw new Error(`${name}: without the program behind this page only .cube looks can be read.`);
      const { text, notes: told = [] } = json || cube ? { text: await file.text() } : await state.engine.look(file, name);
      if (!json) {
        const table = parseCube(text, name);
        app.commit({ ...newEdit(edit().model), table });
        app.tell([`${name} is applied as a look. Reset all takes it away.`, ...told].join(' '));
      } else {
        const { edit: own, notes } = fromPreset(text, name, edit());
        if (own.c.some((v) => Math.abs(v) > 1) || own.strength > 1 || own.areas.some((a) => a.c.some((v) => Math.abs(v) > 1))) app.widen(true);
        app.commit(own);
        app.tell([`Preset loaded: ${name}.`, ...notes].join(' '));
      }
    } catch (error) {
      app.tell(error.message, true);
    }
  }

  /** Put a photo on the stage; read it first where that was not done. -> why it cannot be read, or nothing. */
  async function show(photo, fresh = false) {
    const own = ++turn, earlier = state.active;
    if (!photo.source) {
      app.busy('Reading the photo');
      try {
        await read(photo);
      } catch (error) {
        if (fresh) state.photos = state.photos.filter((one) => one !== photo);
        if (own === turn) app.busy(null);
        app.tell(error.message, true);
        strip();
        return error.message;
      }
      if (own === turn) app.busy(null);
      if (fresh) rememberFile(photo);
    }
    if (own !== turn || !state.photos.includes(photo)) return null;
    state.active = photo;
    state.target = 'whole';
    state.painting = null;
    for (const other of state.photos) if (other !== photo && state.photos.length > 3) other.source = null; // memory
    app.picture.start(photo);
    app.tell((photo.notes ?? []).join(' '));
    app.show();
    strip();
    remember(photo);
    if (earlier && earlier !== photo) remember(earlier);
    return null;
  }

  /** A photo's pixels: by the browser where it reads the same as the library, which tells whether it can be read. */
  async function read(photo) {
    checkSize(photo, await sizeOf(photo.blob).catch(() => null));
    const server = state.engine.kind === 'server', plain = await isPlain(photo.blob).catch(() => false);
    const decoded = plain || !server ? decode(photo.blob).catch(() => null) : null;
    let said = null;
    if (server) {
      try {
        said = await state.engine.open(photo);
      } catch (error) {
        const away = error.away, source = await (decoded ?? (away ? decode(photo.blob).catch(() => null) : null));
        if (away && source) photo.notes = [error.message];
        else if (!away && /pip install|extra/.test(error.message)) return readPreview(photo, error);
        else throw error;
        photo.source = source;
        return size(photo);
      }
      photo.notes = said.notes;
    }
    const source = await decoded;
    photo.source = source && (!said || (source.width === said.width && source.height === said.height))
      ? source : server ? rgbSource(await state.engine.pixels(photo)) : null;
    if (photo.source) photo.source.bits = said?.bits ?? 8;
    if (!photo.source && CAMERA.test(photo.name)) {
      return readPreview(photo, new Error(`${photo.name}: this browser reads no RAW and no HEIC. Turn it into a JPEG, or open it with `
        + "diffretouch on a computer: pip install 'diffretouch[demo,raw,heic]', then diffretouch demo."));
    }
    if (!photo.source) throw new Error(`${photo.name} cannot be read by this browser: JPEG, PNG, WebP and AVIF can.`);
    return size(photo, said);
  }

  function checkSize({ name }, found) {
    const megapixels = found ? (found.width * found.height) / 1e6 : 0, most = state.about.limits.mp;
    if (megapixels > most) throw new Error(`${name} has ${Math.round(megapixels)} megapixels; the most is ${most} megapixels.`);
  }

  function size(photo, said = null) {
    const { width, height } = photo.source;
    checkSize(photo, photo.source);
    photo.size = `${width} × ${height}, ${((width * height) / 1e6).toFixed(1)} MP${said && said.bits > 8 ? `, ${said.bits} bits` : ''}`;
  }

  /** RAW or HEIC that the library cannot read here: what the camera put beside it, and what to install. */
  async function readPreview(photo, error) {
    const preview = await embeddedPreview(photo.blob);
    if (!preview) throw error;
    photo.blob = preview;
    photo.name = `${photo.name} (preview).jpg`;
    await read(photo);
    photo.notes = [error.message, 'Its embedded preview is open meanwhile.'];
  }

  function close(photo) {
    const at = state.photos.indexOf(photo);
    state.photos.splice(at, 1);
    forget(photo);
    state.engine.close?.(photo);
    turn += 1;
    if (state.photos.length) return show(state.photos[Math.min(at, state.photos.length - 1)]);
    state.active = null;
    state.target = 'whole';
    state.painting = null;
    app.picture.start(null);
    app.tell('');
    app.busy(null);
    app.show();
    return strip();
  }

  function strip() {
    const place = find('strip');
    place.hidden = state.photos.length < 2;
    find('save-all').hidden = state.photos.length < 2;
    const buttons = state.photos.map((photo) => {
      photo.thumb ??= Object.assign(document.createElement('canvas'), { width: 84, height: 56 });
      const one = photo.button ?? document.createElement('button');
      if (!photo.button) {
        photo.button = one;
        one.type = 'button';
        one.setAttribute('role', 'option');
        one.append(photo.thumb);
        one.addEventListener('click', () => show(photo));
      }
      one.setAttribute('aria-label', photo.name);
      one.title = photo.name;
      one.setAttribute('aria-selected', String(photo === state.active));
      if (!photo.thumbed && photo !== state.active) {
        photo.thumbed = true;
        createImageBitmap(photo.blob, { resizeHeight: 112 }).then((bitmap) => paintThumb(photo, bitmap), () => {});
      }
      return one;
    });
    if (buttons.length !== place.children.length || buttons.some((one, i) => one !== place.children[i])) place.replaceChildren(...buttons);
  }

  function paintThumb(photo, drawable) {
    const height = 56, width = Math.max(Math.round((drawable.width * height) / drawable.height), 20);
    Object.assign(photo.thumb, { width, height });
    photo.thumb.getContext('2d').drawImage(drawable, 0, 0, width, height);
  }

  /** The photo's place in the strip shows how it is retouched. */
  function thumb() {
    const photo = state.active;
    if (!photo?.thumb || state.photos.length < 2 || state.moving) return;
    const { pixels, width, height } = app.picture.small(120);
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext('2d').putImageData(new ImageData(pixels, width, height), 0, 0);
    photo.thumbed = true;
    paintThumb(photo, canvas);
  }

  /** What was open before a reload; with `others`, in tabs that are gone. */
  async function restore(others = false) {
    const looks = await recall(others), found = [];
    for (const look of looks) {
      const photo = await revive(look);
      if (photo) found.push([photo, look.active]);
    }
    state.photos.push(...found.map(([photo]) => photo));
    strip();
    const wanted = found.find(([, active]) => active) ?? found[0];
    if (wanted) await show(wanted[0]);
    if (others) state.photos.forEach(remember);
    return found.length;
  }

  async function offerOthers() {
    const count = (await recall(true)).length, button = find('resume');
    button.hidden = !count || state.photos.length > 0;
    button.textContent = `Go on where you left off (${count === 1 ? 'one photo' : `${count} photos`})`;
  }

  // What opens files

  find('open').addEventListener('click', () => find('files').click());
  find('files').addEventListener('change', () => {
    const files = [...find('files').files];
    find('files').value = ''; // so that the same can be chosen again
    open(files);
  });
  find('resume').addEventListener('click', () => restore(true));
  find('close').addEventListener('click', () => state.active && close(state.active));
  find('load-look').addEventListener('click', () => find('look-file').click());
  find('look-file').addEventListener('change', () => {
    const files = [...find('look-file').files];
    find('look-file').value = '';
    open(files, true);
  });
  addEventListener('dragover', (event) => { event.preventDefault(); find('stage').classList.add('over'); });
  addEventListener('dragleave', (event) => { if (!event.relatedTarget) find('stage').classList.remove('over'); });
  addEventListener('drop', (event) => {
    event.preventDefault();
    find('stage').classList.remove('over');
    if (event.dataTransfer.files.length) open([...event.dataTransfer.files]);
  });
  addEventListener('paste', (event) => { if (event.clipboardData?.files.length) open([...event.clipboardData.files]); });
  for (const [name, alt] of Object.entries(SAMPLES)) {
    const button = Object.assign(document.createElement('button'), { type: 'button' });
    button.dataset.sample = name;
    button.append(Object.assign(new Image(), { src: `samples/${name}-small.jpg`, alt, loading: 'lazy' }));
    button.addEventListener('click', async () => {
      const answer = await fetch(`samples/${name}.jpg`).catch(() => null);
      if (answer?.ok) open([new File([await answer.blob()], `${name}.jpg`, { type: 'image/jpeg' })]);
      else app.tell('The sample cannot be fetched.', true);
    });
    find('samples').append(button);
  }

  return { open, show, close, strip, thumb, restore, offerOthers };
}

// Files: the whole photo by the library where it is there, by the browser where not; tables, sheets, presets.
import { carryJpeg } from './photo.js';
import { toPng } from './masks.js';
import { ATTRIBUTES, edit, state, toPreset, words } from './state.js';
import { toCube } from './table.js';

const STRIP = 1024, NODES = 33; // pixels that are made at once; nodes on an edge of a table
const KINDS = { '.jpg': 'image/jpeg', '.png': 'image/png', '.webp': 'image/webp' };
const LABELS = { '': 'As the photo', '.jpg': 'JPEG', '.png': 'PNG', '.tif': 'TIFF (16 bits stay)', '.webp': 'WebP', '.avif': 'AVIF', '.jxl': 'JPEG XL' };

const TABLES = { '.cube': 'Table (.cube)', '.xmp': 'Lightroom profile (.xmp)', '.clf': 'OpenColorIO (.clf)', '.png': 'Hald image (.png)' };

export function fillFormats(select) {
  const suffixes = state.engine.kind === 'server' ? ['', ...state.about.suffixes] : Object.keys(KINDS);
  select.replaceChildren(...suffixes.map((suffix) => new Option(LABELS[suffix] ?? suffix, suffix)));
}

export function fillTables(select) {
  const known = state.engine.kind === 'server' ? state.about.tables : ['.cube'];
  select.replaceChildren(...known.map((suffix) => new Option(TABLES[suffix] ?? suffix, suffix)));
}

/** Give a file to the person: as if a link had been clicked. */
export function download(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export const stem = (name) => name.replace(/\.[^.]*$/, '').replace(/[^\p{L}\p{N}_.-]+/gu, '_') || 'photo';

/** Save the photo that is shown at full size; returns sentences on what happened. */
export async function savePhoto(app, suffix, quality) {
  const photo = state.active, own = edit();
  if (state.engine.kind === 'server') {
    try {
      return await byLibrary(photo, own, suffix, quality);
    } catch (error) {
      if (!error.away) throw error;
      return [error.message, ...(await byBrowser(app, photo, suffix, quality)), 'It was made by the browser, with 8 bits.'];
    }
  }
  await app.picture.settled();
  if (state.active !== photo) throw new Error(`${photo.name} was not saved: another photo came on the stage meanwhile.`);
  return byBrowser(app, photo, suffix, quality);
}

export async function asked(own, more = {}) {
  const areas = await Promise.all(own.areas.map(async ({ name, kind, low, high, softness, invert, c, mask }) => ({
    name, kind, c, invert, ...(kind === 'paint' ? { mask: await toPng(mask) } : { low, high, softness }),
  })));
  const { model, c, strength, seed, table } = own;
  return { model, c, strength, seed, areas, ...(table ? { table: table.text } : {}), ...more };
}

async function byLibrary(photo, own, suffix, quality) {
  const more = { suffix: suffix || null, quality };
  const { blob, name, notes } = await state.engine.file(photo, await asked(own, more));
  download(blob, name);
  return [`${name}, ${amount(blob.size)}, is in your downloads.`, ...notes];
}

async function byBrowser(app, photo, suffix, quality) {
  const kind = KINDS[suffix] ?? (/\.png$/i.test(photo.name) ? 'image/png' : /\.webp$/i.test(photo.name) ? 'image/webp' : 'image/jpeg');
  if (suffix && !KINDS[suffix]) throw new Error(`The browser alone writes JPEG, PNG and WebP, not ${suffix}.`);
  const { width, height, space } = photo.source, wide = space === 'display-p3';
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext('2d', { colorSpace: space });
  if (!context) throw new Error('The browser cannot hold a picture of this size.');
  for (let y = 0; y < height; y += STRIP) {
    for (let x = 0; x < width; x += STRIP) {
      const w = Math.min(STRIP, width - x), h = Math.min(STRIP, height - y);
      const pixels = app.view.slicer.render({ x, y, step: 1 }, w, h, { wide });
      context.putImageData(new ImageData(pixels, w, h, { colorSpace: space }), x, y);
    }
  }
  const notes = [];
  if (kind === 'image/jpeg' && app.view.slicer.alpha) {
    Object.assign(context, { globalCompositeOperation: 'destination-over', fillStyle: '#fff' });
    context.fillRect(0, 0, width, height);
    notes.push('JPEG has no transparency: it was laid on white.');
  }
  let blob = await canvas.convertToBlob({ type: kind, quality: (quality ?? 92) / 100 });
  if (kind === 'image/jpeg') {
    const carried = await carryJpeg(blob, photo.blob, space);
    blob = carried.blob;
    notes.push(...carried.notes);
  }
  const ending = Object.keys(KINDS).find((one) => KINDS[one] === kind), name = `${stem(photo.name)}_retouched${ending}`;
  download(blob, name);
  return [`${name}, ${amount(blob.size)}, is in your downloads.`, ...notes];
}

export async function saveTable(app, suffix) {
  const own = edit(), lost = own.areas.length ? ['Areas are not in it.'] : [];
  if (own.table && suffix === '.cube' && own.strength === 1) {
    download(new Blob([own.table.text]), `${stem(own.table.title)}.cube`);
    return [];
  }
  if (!state.engine.table) {
    const { table, error } = await app.picture.table(NODES), name = `${stem(own.table?.title ?? state.active.name)}.cube`;
    download(new Blob([toCube(table)]), name);
    const said = error === undefined ? [] : [`Against the picture it is off by ${error.toFixed(1)} levels in the mean.`];
    return [`${name} is in your downloads.`, ...said, ...lost];
  }
  const { blob, name, notes } = await state.engine.table(state.active, await asked({ ...own, areas: [] }, { suffix }));
  download(blob, name);
  return [`${name} is in your downloads.`, ...notes, ...lost];
}

export async function saveSheet(app) {
  const { blob, name } = state.engine.sheet
    ? await state.engine.sheet(state.active, await asked({ ...edit(), areas: [] })) : await sheetByBrowser(app);
  download(blob, name);
  return [`${name}, ${amount(blob.size)}, is in your downloads.`];
}

/** What each slider does to the photo, from -1 to 1. */
async function sheetByBrowser(app) {
  const { name } = state.active, values = [-1, -0.5, 0, 0.5, 1], gap = 6;
  const rows = ATTRIBUTES.flatMap((_, k) => values.map((v) => ATTRIBUTES.map((_, i) => (i === k ? v : 0))));
  const pictures = await app.picture.sheet(rows, 256), { width, height } = pictures[0];
  const line = Math.max(Math.floor(height / 14), 11), top = Math.round(1.5 * line);
  const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext('2d'), font = `${line}px sans-serif`;
  context.font = font;
  const left = Math.ceil(Math.max(...ATTRIBUTES.map((one) => context.measureText(one).width))) + 2 * gap;
  Object.assign(canvas, { width: left + values.length * (width + gap), height: top + ATTRIBUTES.length * (height + gap) });
  Object.assign(context, { fillStyle: '#fff', font, textBaseline: 'middle' });
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = '#1e1e1e';
  ATTRIBUTES.forEach((one, k) => context.fillText(one, gap, top + k * (height + gap) + height / 2));
  context.textAlign = 'center';
  values.forEach((v, j) => context.fillText(v > 0 ? `+${v}` : String(v), left + j * (width + gap) + width / 2, top / 2));
  pictures.forEach(({ pixels }, i) => {
    const x = left + (i % values.length) * (width + gap), y = top + Math.floor(i / values.length) * (height + gap);
    context.putImageData(new ImageData(pixels, width, height), x, y);
  });
  return { blob: await canvas.convertToBlob({ type: 'image/png' }), name: `${stem(name)}_sweep.png` };
}

export function savePreset() {
  const own = edit(), name = `${stem(state.active.name)}_preset.json`;
  if (own.table) throw new Error('A colour table is no preset: save it as .cube.');
  download(new Blob([`${JSON.stringify(toPreset(own, state.about.models[own.model]), null, 1)}\n`]), name);
  const lost = own.areas.some((area) => !words(area));
  return [`${name} is in your downloads.`, ...(lost ? ['Painted, inverted or newly feathered areas are not in it.'] : [])];
}

const amount = (size) => (size > 1e5 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e3).toFixed(1)} kB`);
